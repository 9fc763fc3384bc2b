"""What happens around the steps: the run record, checkpoints, signals."""
