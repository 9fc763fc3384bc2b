"""LightningModules: what a training, validation, test or prediction step computes."""
