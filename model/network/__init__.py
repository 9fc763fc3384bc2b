"""Floor 1: families, weights and tokenizers of stock networks; imports `model.tensors` and below."""
