"""Floor 8: one run from start to report, and the four actions; imports `model.assembly` and below."""
