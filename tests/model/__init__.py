"""Tests of the networks and adapters."""
