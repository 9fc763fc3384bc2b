"""Tests of `dataset.tasks`; their rows feed the contract suite."""
