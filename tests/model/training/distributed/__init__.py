"""Tests of `model.training.distributed`."""
