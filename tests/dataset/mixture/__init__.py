"""Tests of `dataset.mixture`."""
