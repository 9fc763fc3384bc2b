"""Networks, adapters and everything trained on them."""
