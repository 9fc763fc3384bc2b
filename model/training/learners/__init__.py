"""LightningModules: one training, validation and test step each."""
