"""Tests of `model.exchange.foreign`."""
