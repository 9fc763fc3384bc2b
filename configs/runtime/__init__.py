"""Floor 0, bottom: faults, console, files, registries, seeds, SLURM; imports nothing of the project."""
