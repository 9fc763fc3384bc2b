"""Tests of `dataset.batches`."""
