"""Tests of `model.run.actions`."""
