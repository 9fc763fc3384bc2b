"""LoRA: a frozen linear plus a trainable product of two thin matrices.

Source: Hu et al. 2021, arXiv 2106.09685, equation 3: h = W0 x + (alpha / R) B A x.
Differs: nothing in the formula. B is kept transposed in memory, (R, D_out), so that both products of the
backward pass run along rows; one autograd node computes base and delta of all linears that read one input.
A projection planned by head gets `model.adapters.lora_by_head`, whose B is block-diagonal, and the same node.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, AdapterKind, LoraForm, PlannedSite
from model.adapters.block_diagonal import tiled
from model.adapters.fused_lora import fused_lora_forward
from model.adapters.initialisation import kaiming_uniform_
from model.adapters.lora_by_head import Head, HeadLora
from model.site import SiteKey
from model.tensors.random_state import generator


class Lora(Adapter):
    """Low-rank delta (alpha / R) B A drop(x).

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R, at least 1.
        alpha: LoRA's alpha.
        dropout: probability that an input feature is dropped before A.
    """

    def __init__(
        self, in_features: int, out_features: int, *, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.scale = alpha / rank
        self.blocks = tiled([(rank, self.scale)], out_features)
        self.A = nn.Parameter(torch.zeros(rank, in_features))
        self.B = nn.Parameter(torch.zeros(rank, out_features))  # the transpose of the paper's B

    def reset(self, source: torch.Generator) -> None:
        """Draw A Kaiming uniform (a = sqrt 5) from the generator and set B to zero."""
        kaiming_uniform_(self.A, self.A.shape[1], source)
        with torch.no_grad():
            self.B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.A.to(x.dtype))
        return (z * self.scale) @ self.B.to(z.dtype)

    def factors(self) -> dict[str, Tensor]:
        """Return A (R, D_in) and B (D_out, R)."""
        return {"A": self.A, "B": self.B.t()}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return B."""
        return ("B",)

    def merged_delta(self) -> Tensor:
        """Return (alpha / R) B A: (D_out, D_in)."""
        return self.scale * (self.B.t() @ self.A)

    def export(self) -> LoraForm:
        """Return A (R, D_in), B (D_out, R) and alpha / R."""
        return self.A, self.B.t(), self.scale

    def load(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Take A (R, D_in) and B (D_out, R) of a file whose own scale is `scale`; B is rescaled to ours."""
        with torch.no_grad():
            self.A.copy_(a)
            ratio = scale / self.scale
            self.B.copy_(b.t() if ratio == 1 else b.t() * ratio)


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, nn.Module]:
    return {p.site.key: (_by_head if p.config.heads else _whole)(p, seed) for p in planned}


def _whole(planned: PlannedSite, seed: int) -> Lora:
    site, config = planned.site, planned.config
    adapter = Lora(
        site.in_features, site.out_features, rank=config.rank, alpha=config.alpha, dropout=config.dropout
    )
    source = generator(seed, "lora", str(site.key))
    if config.init:
        adapter.reset(source)
    else:
        _draw_both(adapter, source)
    return adapter


def _by_head(planned: PlannedSite, seed: int) -> HeadLora:
    site, config = planned.site, planned.config
    heads = [Head(head.rank, head.alpha, head.importance) for head in config.heads]
    adapter = HeadLora(site.in_features, site.out_features, heads=heads, dropout=config.dropout)
    sources = [generator(seed, "lora", str(site.key), "head", number) for number in range(len(heads))]
    adapter.reset(sources, [not head.init for head in config.heads])
    return adapter


def _draw_both(adapter: Lora, source: torch.Generator) -> None:
    """Fill A and B at random: what PEFT users know as `init_lora_weights = false`, a start for tests."""
    adapter.reset(source)
    kaiming_uniform_(adapter.B, adapter.rank, source)


ADAPTER = AdapterKind(
    build=_build,
    fused_forward=fused_lora_forward,
    export=lambda adapter: adapter.export(),
    load=lambda adapter, a, b, scale: adapter.load(a, b, scale),
    by_head=True,
)
