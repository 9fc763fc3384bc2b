"""Floor 0: the options, their types, ranges and documentation; imports `configs.runtime` alone."""
