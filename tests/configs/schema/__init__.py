"""Tests of `configs.schema`."""
