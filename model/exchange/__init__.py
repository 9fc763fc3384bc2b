"""Floor 6: adapters in PEFT's format, written, read and compared; imports `model.training` and below."""
