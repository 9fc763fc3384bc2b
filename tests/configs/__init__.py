"""Tests of the options' floor."""
