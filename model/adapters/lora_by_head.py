"""LoRA for the heads of a projection: each head owns its output rows and has A, B, rank and alpha of its own.

Source: Hu et al. 2021, arXiv 2106.09685, equation 3, for each head: head j adds (alpha_j / R_j) B_j A_j
drop(x) to its rows j D_h to (j + 1) D_h - 1.
Differs: one dropout draw serves all heads, as they read one input. All A_j are stored as one matrix, all B_j
transposed as another, so that the projection is a LoRA of rank R_1 + .. + R_H whose B is block-diagonal.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, LoraForm
from model.adapters.block_diagonal import tiled
from model.adapters.initialisation import kaiming_uniform_


class Head(NamedTuple):
    """What one head asks for: its rank (0 for none), LoRA's alpha, and what else multiplies its delta."""

    rank: int
    alpha: float
    strength: float = 1.0


class HeadLora(Adapter):
    """Low-rank delta of a projection whose heads have adapters of their own.

    Args:
        in_features: D_in.
        out_features: D_out, a multiple of the number of heads.
        heads: in the order of the output rows; at least one with a rank.
        dropout: probability that an input feature is dropped before every A.
    """

    def __init__(self, in_features: int, out_features: int, *, heads: Sequence[Head], dropout: float) -> None:
        ranks = tuple(head.rank for head in heads)
        super().__init__(rank=sum(ranks), alpha=[head.alpha for head in heads], dropout=dropout)
        self.ranks = ranks
        self.scales = tuple(head.strength * head.alpha / head.rank if head.rank else 0.0 for head in heads)
        self.width = out_features // len(heads)
        self.blocks = tiled(list(zip(self.ranks, self.scales)), self.width)
        self.A = nn.Parameter(torch.zeros(self.rank, in_features))
        self.B = nn.Parameter(torch.zeros(self.rank, self.width))  # every B_j transposed, one under the other

    def reset(self, sources: Sequence[torch.Generator], both: Sequence[bool]) -> None:
        """Draw every A_j Kaiming uniform (a = sqrt 5) from its head's generator; set B_j to zero or draw it.

        Args:
            sources: a generator for each head.
            both: whether the head's B_j is drawn too.
        """
        with torch.no_grad():  # views of a parameter that trains may be written only so
            self.B.zero_()
            for a, b, source, draws in zip(self.A.split(self.ranks), self.B.split(self.ranks), sources, both):
                kaiming_uniform_(a, a.shape[1], source)
                if draws and len(b):
                    kaiming_uniform_(b, len(b), source)

    def up(self) -> Tensor:
        """Return the dense transposed B with every head's scale in it, zero off the blocks: (R, D_out)."""
        return torch.block_diag(*(b * scale for b, scale in zip(self.B.split(self.ranks), self.scales)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.A.to(x.dtype))
        return z @ self.up().to(z.dtype)

    def factors(self) -> Mapping[str, Tensor]:
        """Return every A_j, one under the other (R, D_in), and every B_j, one beside the other (D_h, R)."""
        return {"A": self.A, "B": self.B.t()}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return B, which holds every B_j."""
        return ("B",)

    def merged_delta(self) -> Tensor:
        """Return every head's (alpha_j / R_j) B_j A_j, one under the other: (D_out, D_in)."""
        return self.up().t() @ self.A

    def export(self) -> LoraForm:
        """Return the plain LoRA of the same effect: A (R, D_in), B (D_out, R), scale 1."""
        return self.A, self.up().t(), 1.0

    def load(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Take a plain LoRA whose B (D_out, R) has the heads' blocks and nothing beside them.

        Raises:
            ValueError: naming the first head whose ranks reach rows of another head.
        """
        ours = [part.split(self.ranks, 1) for part in b.split(self.width)]
        for head, parts in enumerate(zip(*ours)):
            odd = [other for other, part in enumerate(parts) if other != head and part.any()]
            if odd:
                raise ValueError(
                    f"B is not zero where the ranks of head {head} meet the rows of head {odd[0]},"
                    " but the LoRA configuration gives each head an adapter of its own"
                )
        with torch.no_grad():
            self.A.copy_(a)
            for head, (mine, one) in enumerate(zip(self.B.split(self.ranks), self.scales)):
                if len(mine):
                    mine.copy_(ours[head][head].t() * (scale / one))
