"""Tests of `configs.runs`."""
