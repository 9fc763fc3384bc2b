"""Tests of the adapters, a module for each kind."""
