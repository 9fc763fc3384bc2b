"""Floor 5: the data sets of `--dataset mix` and their epochs; imports `dataset.encoding` and below."""
