"""Whole runs of each kind of adapter: files, counts, resumption, other readers."""
