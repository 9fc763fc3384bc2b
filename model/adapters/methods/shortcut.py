"""Shortcut: a low-rank map of one point of the residual stream that is added at another.

    low(h) = (shortcut_alpha / R) B A drop(h)            A (R, D), B (D, R)

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956), low-rank residuals and cross-layer shortcuts.
Differs: the paper's base maps (identity and zero) are not stored as dense matrices. This module returns its
own term, and `model.injection.residual_stream` adds it to the sum, so that at the start, B = 0, the network
is the pretrained one.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, AdapterKind, PlannedSite
from model.adapters.initialisation import kaiming_uniform_
from model.site import SHORTCUT, SiteKey
from model.tensors.random_state import generator


class Shortcut(Adapter):
    """The term (shortcut_alpha / R) B A drop(h).

    Args:
        width: D, of the residual stream.
        rank: R, at least 1.
        alpha: shortcut_alpha.
        dropout: probability that a feature of h is set to zero before A.
    """

    def __init__(self, width: int, *, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.zeros(rank, width))
        self.B = nn.Parameter(torch.zeros(width, rank))

    def reset(self, source: torch.Generator, *, random_b: bool = False) -> None:
        """Draw A Kaiming uniform (a = sqrt 5) from the generator; set B to zero, or draw it as well.

        Args:
            source: the site's generator; B is drawn after A.
            random_b: what the TOML calls `init_lora_weights = false`.
        """
        kaiming_uniform_(self.A, self.A.shape[1], source)
        with torch.no_grad():
            self.B.zero_()
        if random_b:
            kaiming_uniform_(self.B, self.rank, source)

    def forward(self, h: Tensor) -> Tensor:
        """Return the term. h: (..., D) -> (..., D)."""
        z = F.linear(F.dropout(h, self.dropout, self.training), self.A.to(h.dtype))  # (..., R)
        return F.linear(z * self.scale, self.B.to(z.dtype))

    def factors(self) -> dict[str, Tensor]:
        """Return A (R, D) and B (D, R)."""
        return {"A": self.A, "B": self.B}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return B."""
        return ("B",)

    def merged_delta(self) -> None:
        """Return None: there is no linear whose weight could take the map."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, Shortcut]:
    return {p.site.key: _one(p, seed) for p in planned}


def _one(planned: PlannedSite, seed: int) -> Shortcut:
    site, config = planned.site, planned.config
    adapter = Shortcut(site.in_features, rank=config.rank, alpha=config.alpha, dropout=config.dropout)
    adapter.reset(generator(seed, SHORTCUT, str(site.key)), random_b=not config.init)
    return adapter


ADAPTER: AdapterKind[Shortcut] = AdapterKind(
    build=_build,
    place="stream",
    unmergeable="adds its term to the sum between layers, where no linear layer has a weight to take it",
)
