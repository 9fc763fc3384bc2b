"""Floor 2: LoRA and shortcut TOMLs become one configuration per site; imports `model.network` and below."""
