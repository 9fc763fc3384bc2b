"""One file per kind of adapter."""
