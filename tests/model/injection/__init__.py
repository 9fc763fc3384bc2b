"""Tests of `model.injection`."""
