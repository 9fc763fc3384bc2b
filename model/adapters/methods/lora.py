"""LoRA: a frozen linear plus a trainable product of two thin matrices.

    h = W0 x + b + (alpha / R) B A drop(x)               A (R, D_in), B (D_out, R)

Source: Hu et al. 2021, arXiv 2106.09685, equation 3; the scaling alpha / R and the start (A random, B zero)
are those of its section 4.1.
Differs: A starts Kaiming uniform (a = sqrt 5) as in the published code, where the paper says Gaussian. B is
stored transposed, (R, D_out), so that both products of the backward pass read memory row by row. Base and
delta of all linears that read one input are one autograd node, `model.adapters.fused_lora`. A projection
planned by head gets `model.adapters.lora_by_head`, whose B is block-diagonal, and the same node.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, AdapterKind, LoraForm, PlannedSite
from model.adapters.block_diagonal import head_blocks
from model.adapters.fused_lora import fused_lora_forward
from model.adapters.initialisation import kaiming_uniform_
from model.adapters.lora_by_head import HeadConfig, LoraByHead
from model.site import SiteKey
from model.tensors.random_state import generator


class Lora(Adapter):
    """The delta (alpha / R) B A drop(x).

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R, at least 1.
        alpha: LoRA's alpha.
        dropout: probability that an input feature is set to zero before A.
    """

    def __init__(
        self, in_features: int, out_features: int, *, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.scale = alpha / rank
        self.blocks = head_blocks([(rank, self.scale)], out_features)
        self.A = nn.Parameter(torch.zeros(rank, in_features))
        self.B = nn.Parameter(torch.zeros(rank, out_features))  # the transpose of the paper's B

    def reset(self, source: torch.Generator, *, random_b: bool = False) -> None:
        """Draw A Kaiming uniform (a = sqrt 5) from the generator; set B to zero, or draw it as well.

        Args:
            source: the site's generator; B is drawn after A.
            random_b: what PEFT users know as `init_lora_weights = false`, a start for tests.
        """
        kaiming_uniform_(self.A, self.A.shape[1], source)
        with torch.no_grad():
            self.B.zero_()
        if random_b:
            kaiming_uniform_(self.B, self.rank, source)

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.A.to(x.dtype))  # (..., R)
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
        """Take the factors of a file; B is rescaled from the file's scale to this adapter's.

        Args:
            a: (R, D_in).
            b: (D_out, R).
            scale: alpha / R of the file.
        """
        with torch.no_grad():
            self.A.copy_(a)
            ratio = scale / self.scale
            self.B.copy_(b.t() if ratio == 1 else b.t() * ratio)


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, Lora | LoraByHead]:
    return {p.site.key: _by_head(p, seed) if p.config.heads else _whole(p, seed) for p in planned}


def _whole(planned: PlannedSite, seed: int) -> Lora:
    site, config = planned.site, planned.config
    adapter = Lora(
        site.in_features, site.out_features, rank=config.rank, alpha=config.alpha, dropout=config.dropout
    )
    adapter.reset(generator(seed, "lora", str(site.key)), random_b=not config.init)
    return adapter


def _by_head(planned: PlannedSite, seed: int) -> LoraByHead:
    site, config = planned.site, planned.config
    heads = [HeadConfig(head.rank, head.alpha, head.importance) for head in config.heads]
    adapter = LoraByHead(site.in_features, site.out_features, heads=heads, dropout=config.dropout)
    sources = [generator(seed, "lora", str(site.key), "head", number) for number in range(len(heads))]
    adapter.reset(sources, random_b=[not head.init for head in config.heads])
    return adapter


ADAPTER: AdapterKind[Lora | LoraByHead] = AdapterKind(
    build=_build,
    fused_forward=fused_lora_forward,
    export=lambda adapter: adapter.export(),
    load=lambda adapter, a, b, scale: adapter.load(a, b, scale),
    by_head=True,
)
