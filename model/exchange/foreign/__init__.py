"""What other programs make of adapters: their methods, and their tokenizers."""
