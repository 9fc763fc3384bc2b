"""Floor 0: TOML read with line numbers, bound to dataclasses, written; imports `configs.schema` and below."""
