"""Floor 6: adapter directories in PEFT's format, written and read; imports `model.training` and below."""
