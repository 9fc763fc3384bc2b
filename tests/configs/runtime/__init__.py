"""Tests of `configs.runtime`."""
