"""Runs that are killed, stopped or queued again, or that meet bad numbers or a full disk."""
