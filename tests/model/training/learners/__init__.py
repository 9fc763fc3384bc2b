"""Tests of `model.training.learners`."""
