"""Floor 4: adapters at the sites of a stock network; imports `model.adapters` and below."""
