"""Callbacks around the training steps: the metrics record, checkpoints, signals."""
