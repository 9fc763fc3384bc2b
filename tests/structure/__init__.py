"""Tests that read the code, the docs and the shipped TOMLs."""
