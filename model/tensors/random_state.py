"""Random states: generators for one purpose of a run, and the global generators of a process."""

import random
from typing import Any

import numpy as np
import torch

from configs.runtime.seeds import derive


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded from the run's seed and a purpose; global generators are not used."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def random_states() -> dict[str, Any]:
    """Return the states of all global generators of this process: Python, NumPy, torch, CUDA devices."""
    version, words, position = random.getstate()
    return {
        "python": (version, tuple(words), position),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "devices": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set all global generators of this process.

    Args:
        states: what `random_states` returned.
    """
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["devices"]:
        torch.cuda.set_rng_state_all(states["devices"])
