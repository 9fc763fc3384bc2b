"""File endings that `local` data may have, one reader each."""
