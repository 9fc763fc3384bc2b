"""Tests of `model.exchange`."""
