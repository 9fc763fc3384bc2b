"""Floor 3: the adapter contract and what the methods share; imports `model.plan` and below."""
