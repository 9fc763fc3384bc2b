"""Tests of `configs.toml`."""
