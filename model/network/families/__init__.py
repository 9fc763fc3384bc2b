"""One file per model family: rows of site paths."""
