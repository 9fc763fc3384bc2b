"""Tests of `dataset.encoding`."""
