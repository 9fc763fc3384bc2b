"""One file per data set that `--dataset` names."""
