"""Tests of `model.freezing`."""
