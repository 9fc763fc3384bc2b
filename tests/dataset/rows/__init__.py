"""Tests of `dataset.rows`."""
