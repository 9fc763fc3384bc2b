"""Tests of `model.figures`."""
