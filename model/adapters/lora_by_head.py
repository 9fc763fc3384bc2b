"""LoRA by attention head: every head of a projection has A, B, rank and alpha of its own.

Head j owns the output rows j D_h to (j + 1) D_h - 1, where D_h = D_out / H, and adds to them

    (alpha_j / R_j) B_j A_j drop(x)                      A_j (R_j, D_in), B_j (D_h, R_j)

Source: Hu et al. 2021, arXiv 2106.09685, equation 3, for each head.
Differs: one dropout draw serves all heads, as they read one input. All A_j are stored as one matrix and all
B_j, transposed, as another, so that the projection is a LoRA of rank R = R_1 + .. + R_H whose B is
block-diagonal.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, LoraForm
from model.adapters.block_diagonal import head_blocks
from model.adapters.initialisation import kaiming_uniform_


class HeadConfig(NamedTuple):
    """The adapter of one head.

    Args:
        rank: R_j; 0 for a head without an adapter.
        alpha: LoRA's alpha.
        strength: importance coefficient that multiplies the head's delta besides.
    """

    rank: int
    alpha: float
    strength: float = 1.0


class LoraByHead(Adapter):
    """The low-rank delta of a projection whose heads have adapters of their own.

    Args:
        in_features: D_in.
        out_features: D_out, a multiple of the number of heads.
        heads: in the order of the output rows; at least one with a rank.
        dropout: probability that an input feature is set to zero before every A_j.
    """

    def __init__(
        self, in_features: int, out_features: int, *, heads: Sequence[HeadConfig], dropout: float
    ) -> None:
        ranks = tuple(head.rank for head in heads)
        super().__init__(rank=sum(ranks), alpha=[head.alpha for head in heads], dropout=dropout)
        self.ranks = ranks
        self.scales = tuple(head.strength * head.alpha / head.rank if head.rank else 0.0 for head in heads)
        self.width = out_features // len(heads)
        self.blocks = head_blocks(list(zip(self.ranks, self.scales)), self.width)
        self.A = nn.Parameter(torch.zeros(self.rank, in_features))
        self.B = nn.Parameter(torch.zeros(self.rank, self.width))  # every B_j transposed, head after head

    def reset(self, sources: Sequence[torch.Generator], *, random_b: Sequence[bool]) -> None:
        """Draw every A_j Kaiming uniform (a = sqrt 5); set B_j to zero, or draw it as well.

        Args:
            sources: a generator for each head; B_j is drawn after A_j.
            random_b: for each head, whether B_j is drawn.
        """
        with torch.no_grad():  # autograd refuses to write to views of a parameter that trains
            self.B.zero_()
            heads = zip(self.A.split(self.ranks), self.B.split(self.ranks), sources, random_b)
            for a, b, source, draws_b in heads:
                kaiming_uniform_(a, a.shape[1], source)
                if draws_b and len(b):
                    kaiming_uniform_(b, len(b), source)

    def up(self) -> Tensor:
        """Return the dense transpose of B with every head's scale in it, zero off the blocks: (R, D_out)."""
        return torch.block_diag(*(b * scale for b, scale in zip(self.B.split(self.ranks), self.scales)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.A.to(x.dtype))  # (..., R)
        return z @ self.up().to(z.dtype)

    def factors(self) -> dict[str, Tensor]:
        """Return A, the A_j one below the other (R, D_in), and B, the B_j side by side (D_h, R)."""
        return {"A": self.A, "B": self.B.t()}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return B, which holds every B_j."""
        return ("B",)

    def merged_delta(self) -> Tensor:
        """Return the (alpha_j / R_j) B_j A_j of all heads, one below the other: (D_out, D_in)."""
        return self.up().t() @ self.A

    def export(self) -> LoraForm:
        """Return the plain LoRA of the same effect: A (R, D_in), B (D_out, R), scale 1."""
        return self.A, self.up().t(), 1.0

    def load(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Take a plain LoRA whose B is zero outside the heads' blocks.

        Args:
            a: (R, D_in).
            b: (D_out, R).
            scale: alpha / R of the file.

        Raises:
            ValueError: naming the first head whose ranks reach rows of another head.
        """
        rows = [part.split(self.ranks, 1) for part in b.split(self.width)]  # rows[i][j]: (D_h, R_j)
        for head, parts in enumerate(zip(*rows)):
            others = [other for other, part in enumerate(parts) if other != head and part.any()]
            if others:
                raise ValueError(
                    f"B is not zero where the ranks of head {head} meet the rows of head {others[0]},"
                    " but the LoRA configuration gives each head an adapter of its own"
                )
        with torch.no_grad():
            self.A.copy_(a)
            for head, (own, own_scale) in enumerate(zip(self.B.split(self.ranks), self.scales)):
                if len(own):
                    own.copy_(rows[head][head].t() * (scale / own_scale))
