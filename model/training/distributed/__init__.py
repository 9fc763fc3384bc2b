"""Floor 5: DDP, sharding and DeepSpeed strategies; imports `model.training` and below."""
