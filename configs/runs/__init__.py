"""Floor 0: run directories, and finished runs compared; imports `configs.schema` and below."""
