"""Floor 0: flags, `--config` files and sweeps become one bound command line; imports all of `configs`."""
