"""Floor 7: a network with its adapters loaded, and what is computed from it; imports floor 6 and below."""
