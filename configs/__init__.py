"""Options: their schema, their binding from TOML and flags; imports no torch."""
