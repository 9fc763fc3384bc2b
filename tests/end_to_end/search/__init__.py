"""Whole runs of `imp-test` and `train-dyrealloc`."""
