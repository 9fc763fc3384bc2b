"""Tests of `dataset.clustering`."""
