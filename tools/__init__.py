"""Commands that read and convert files; nothing imports them."""
