"""Callbacks around the training steps: checkpoints (with signals), the metrics record, the start."""
