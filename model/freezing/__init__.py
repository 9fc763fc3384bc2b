"""Floor 6: AFLoRA's sensitivity, its schedule at work and its record; imports `model.training` and below."""
