"""LoRA-Split: n independent LoRAs of rank R at one linear instead of one of rank n R.

Source: HydraLoRA, Tian et al. 2024, arXiv 2404.19245, section 2: each (A_i, B_i) learns a component of the
corpus, and they are joined afterwards.
Differs: the paper trains n models. Here the n parts travel in one adapter, and a run trains one of them
(`component = i`: that part alone computes and trains, on the run's data; the others wait as they are), so n
runs, each starting from the adapter before it, fill the adapter. Without `component` all parts compute,
joined as `combine` says; training them so together is LoRA of rank n R (with "sum" at n times the alpha).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.number_values import Whole
from model.adapter import AdapterKind, PlannedSite
from model.experts import Mixture, averaged, delta, product, uniform
from model.experts_node import joint
from model.generators import generator
from model.site import SiteKey


@dataclass(frozen=True)
class SplitOptions:
    """Keys of a table with `method = "lora_split"`."""

    heads: Annotated[int, Whole(1, 1024)] = 2
    """n, the number of parts; `r` is the rank of each."""
    combine: Literal["sum", "average"] = "average"
    """How parts are joined where all compute."""
    component: Annotated[int, Whole(0)] | None = None
    """The one part that computes and trains, counted from 0."""

    def __post_init__(self) -> None:
        """Refuse a part that there is not."""
        if self.component is not None and self.component >= self.heads:
            raise ValueError(f"component: the parts are 0 to {self.heads - 1}, got {self.component}")


class Split(nn.Module):
    """Independent low-rank parts, one alone or all joined with a fixed weight.

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R of each part.
        alpha: scaling constant of each part.
        dropout: probability that an input feature is dropped; drawn once for all parts.
        options: how many parts, how they are joined, which one trains.
    """

    observer = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        options: SplitOptions,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.options = options
        count, one = options.heads, options.component
        joins = one is None and options.combine == "average"
        self.scale = alpha / rank / (count if joins else 1)
        self.A = nn.ParameterList([torch.zeros(rank, in_features) for _ in range(count)])
        self.B = nn.ParameterList([torch.zeros(rank, out_features) for _ in range(count)])
        for number in range(count):
            if one not in (None, number):
                self.A[number].requires_grad_(False)
                self.B[number].requires_grad_(False)

    def reset(self, sources: Sequence[torch.Generator], *, draws_both: bool) -> None:
        """Draw every A_i Kaiming uniform (a = sqrt 5) from its generator; set B_i to zero, or draw it too."""
        with torch.no_grad():
            for a, b, source in zip(self.A, self.B, sources):
                uniform(a, a.shape[1], source)
                b.zero_()
                if draws_both:
                    uniform(b, self.rank, source)

    @property
    def drops(self) -> bool:
        """Whether this forward pass draws dropout noise."""
        return self.training and self.dropout > 0

    def mixture(self) -> Mixture:
        """Return the plain LoRA of this computation: of rank R for one part, n R for all."""
        one = self.options.component
        if one is not None or len(self.A) == 1:
            return Mixture(self.A[one or 0], self.B[one or 0])
        return Mixture(torch.cat(list(self.A)), torch.cat(list(self.B)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        return delta(x, F.dropout(x, self.dropout, self.training), self.mixture(), self.scale, None)

    def factors(self) -> dict[str, Tensor]:
        """Return A0, A1, .. (R, D_in) and B0, B1, .. (D_out, R) of the parts that compute."""
        shown = range(len(self.A)) if self.options.component is None else [self.options.component]
        return {f"A{i}": self.A[i] for i in shown} | {f"B{i}": self.B[i].t() for i in shown}

    def merged_delta(self) -> Tensor:
        """Return the delta as a matrix (D_out, D_in)."""
        return product(self.mixture(), self.scale)


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, nn.Module]:
    return {p.site.key: _one(p, seed) for p in planned}


def _one(planned: PlannedSite, seed: int) -> Split:
    site, entry, options = planned.site, planned.entry, planned.options
    adapter = Split(
        site.in_features,
        site.out_features,
        rank=entry.rank,
        alpha=entry.alpha,
        dropout=entry.dropout,
        options=options,
    )
    sources = [
        generator(seed, "lora", str(site.key), *(("part", number) if number else ()))
        for number in range(options.heads)
    ]
    adapter.reset(sources, draws_both=not entry.init)
    return adapter


def _keys(adapter: Split) -> dict[str, str | int]:
    options = adapter.options
    keys: dict[str, str | int] = {"heads": options.heads, "combine": options.combine}
    return keys if options.component is None else {**keys, "component": options.component}


ADAPTER = AdapterKind(build=_build, options=SplitOptions, joint=joint, keys=_keys, average=averaged)
