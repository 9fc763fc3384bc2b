"""Tests of `dataset.rows.formats`."""
