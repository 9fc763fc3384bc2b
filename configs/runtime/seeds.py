"""One seed of a run, many independent random streams: a seed for each purpose."""

import hashlib
from random import Random


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends only on the run's seed and the purpose.

    Args:
        seed: the run's `--seed`.
        purpose: words and numbers that name the random choice, e.g. `("batches", epoch)`.
    """
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def draws(seed: int, *purpose: str | int) -> Random:
    """Return Python's generator for one purpose; its `random()` is the same in every version of Python."""
    return Random(derive(seed, *purpose))
