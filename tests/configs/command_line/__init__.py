"""Tests of `configs.command_line`."""
