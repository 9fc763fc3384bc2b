"""Floor 4: examples become token ids, labels and batches; imports `dataset.suites` and below."""
