"""Tests of `model.assembly`."""
