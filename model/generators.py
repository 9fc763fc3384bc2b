"""Random generators that belong to one purpose of one run."""

import torch

from configs.seeds import derive


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator seeded from the run seed and the purpose; the global ones stay untouched."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
