"""Tests against golden cases: numbers that independent implementations gave, a file for each kind of case."""
