"""Text to batches; knows no network."""
