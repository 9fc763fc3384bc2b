"""Floor 5: objectives, metrics, optimiser and Trainer; imports `model.injection` and below."""
