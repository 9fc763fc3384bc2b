"""Whole runs of `train` and `test`: files, families, tasks, mixtures, real networks."""
