"""Tests of `model.run`."""
