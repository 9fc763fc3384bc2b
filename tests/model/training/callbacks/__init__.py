"""Tests of `model.training.callbacks`."""
