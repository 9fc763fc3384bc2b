"""Suites that walk the folders of kinds."""
