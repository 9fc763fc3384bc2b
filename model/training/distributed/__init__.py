"""Part of floor 5: DDP, sharding and DeepSpeed strategies; imports `model.injection` and below."""
