"""One run seed, many independent streams: a purpose's own seed."""

import hashlib
from random import Random


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on the run seed and the purpose alone.

    Args:
        seed: the run's `--seed`.
        purpose: words and numbers that name the random choice, e.g. `("batches", epoch)`.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def draws(seed: int, *purpose: str | int) -> Random:
    """Return Python's own generator for one purpose; its `random()` is the same in every version."""
    return Random(derive(seed, *purpose))
