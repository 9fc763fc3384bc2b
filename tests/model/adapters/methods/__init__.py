"""Tests of `model.adapters.methods`."""
