"""The heuristics, one file each."""
