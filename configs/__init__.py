"""Options, TOML and run directories: schema, binding from TOML and flags, record; imports no torch."""
