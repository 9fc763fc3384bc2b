"""Floor 1: charts and heat maps, which know numbers and labels alone; imports `model.site` and `configs`."""
