"""Tests of `model.search.heuristics`."""
