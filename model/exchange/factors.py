"""The factors of a module's LoRA, and their zero padding to the rank of another one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from configs.runtime.faults import InputFault


@dataclass(frozen=True)
class Factors:
    """The LoRA of a module: A (R, D_in), B (D_out, R) and the scale of B A."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Return R."""
        return self.a.shape[0]


def padded(factors: Factors, rank: int) -> Factors:
    """Return factors of a greater rank and the same product: A (rank, D_in), B (D_out, rank)."""
    missing = rank - factors.rank
    return replace(factors, a=pad(factors.a, (0, 0, 0, missing)), b=pad(factors.b, (0, missing)))


def with_own_ranks(modules: Mapping[str, Factors], ranks: Any, where: str) -> dict[str, Factors]:
    """Cut the padding of factors off again.

    Args:
        modules: module -> factors as they were written.
        ranks: module -> its rank; empty where nothing was padded.
        where: the file and key of the ranks.

    Raises:
        InputFault: when metadata.json records other ranks than the tensors can have.
    """
    if not isinstance(ranks, dict) or (ranks and set(ranks) != set(modules)):
        raise InputFault(f"{where}: must be a table with a rank for each module")
    cut = {}
    for module, factors in modules.items():
        rank = ranks.get(module, factors.rank)
        if type(rank) is not int or not 0 < rank <= factors.rank:
            raise InputFault(f"{where}: {module}: must be from 1 to {factors.rank}, got {rank!r}")
        if factors.a[rank:].any() or factors.b[:, rank:].any():
            raise InputFault(f"{where}: {module}: the tensors are not zero beyond rank {rank}")
        cut[module] = replace(factors, a=factors.a[:rank], b=factors.b[:, :rank])
    return cut
