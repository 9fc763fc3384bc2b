"""Tests of `dataset.suites`."""
