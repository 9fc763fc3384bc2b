"""Floor 1, bottom: tensor files, checkpoints, random states; imports `model.site` and `configs`."""
