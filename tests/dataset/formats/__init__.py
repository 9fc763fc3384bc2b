"""Tests that mirror `dataset`."""
