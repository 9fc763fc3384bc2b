"""Random states: generators that belong to one purpose of one run, and the global ones of a process."""

import random
from typing import Any

import numpy as np
import torch

from configs.runtime.seeds import derive


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded from the run seed and the purpose; the global ones stay untouched."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def random_states() -> dict[str, Any]:
    """Return the state of every global generator of this process."""
    version, words, position = random.getstate()
    return {
        "python": (version, tuple(words), position),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "devices": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set every global generator of this process."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["devices"]:
        torch.cuda.set_rng_state_all(states["devices"])
