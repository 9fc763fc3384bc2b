"""Tests that run whole commands and read what they leave."""
