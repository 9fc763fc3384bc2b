"""Tests of `model.tensors`."""
