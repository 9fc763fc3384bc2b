"""Tests of the heuristics, a module for each kind."""
