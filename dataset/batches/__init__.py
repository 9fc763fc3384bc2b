"""Floor 6: samplers and the LightningDataModule; imports `dataset.mixture` and below."""
