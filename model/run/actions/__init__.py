"""One file per action of the command line."""
