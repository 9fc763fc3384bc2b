"""Floor 2: files and hub tables become rows, all accounted for; imports `dataset.task` and below."""
