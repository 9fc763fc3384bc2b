"""Floor 6: saliency scores, allocation under a budget, reallocation; imports `model.training` and below."""
