"""Tests of `model.plan`."""
