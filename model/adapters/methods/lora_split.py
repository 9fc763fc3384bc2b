"""LoRA-Split: n independent LoRAs of rank R at one linear instead of one of rank n R.

    y = W0 x + b + c sum_i B_i A_i drop(x)               A_i (R, D_in), B_i (D_out, R)

with c = alpha / R for `combine = "sum"` and for a single part, alpha / (n R) for "average".

Source: HydraLoRA, Tian et al. 2024, arXiv 2404.19245, section 2: each (A_i, B_i) learns a component of the
corpus, and they are joined afterwards.
Differs: the paper trains n models. Here the n parts are one adapter, and a run trains one of them (`component
= i`: that part alone computes and trains, on the run's data; the others stay as they are), so n runs, each
starting from the adapter before it, fill the adapter. Without `component` all parts compute, combined as
`combine` says; training them so together is LoRA of rank n R (with "sum" at n times the alpha).

With `combine = "routed"` parts that are trained already are joined by a router, token by token:

    delta = (alpha / R) sum_i s_i(x) B_i A_i drop(x),    s(x) = softmax(W_r x),    W_r (n, D_in) without bias

Source: LoRAMoE's formula, Dou et al. 2023, arXiv 2312.09979, without its balancing loss.
Differs: the parts stay as they were loaded and W_r alone trains. It starts at zero, where all parts have the
same
weight: the start is the average. Its product and softmax are in float32, as in
`model.adapters.methods.hydra`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema.number_values import Whole
from model.adapters.adapter import Adapter, AdapterKind, PlannedSite
from model.adapters.experts import (
    UNMERGEABLE,
    Mixture,
    Observer,
    average_lora,
    dense_delta,
    mixture_delta,
)
from model.adapters.fused_experts import fused_experts_forward
from model.adapters.initialisation import kaiming_uniform_
from model.site import SiteKey
from model.tensors.random_state import generator


@dataclass(frozen=True)
class SplitOptions:
    """Keys of a table with `method = "lora_split"`."""

    heads: Annotated[int, Whole(1, 1024)] = 2
    """n, the number of parts; `r` is the rank of each."""
    combine: Literal["sum", "average", "routed"] = "average"
    """How parts are joined where all compute; "routed": by a router, which alone trains."""
    component: Annotated[int, Whole(0)] | None = None
    """The one part that computes and trains, counted from 0."""

    def __post_init__(self) -> None:
        """Refuse a part that there is not, and one together with a router."""
        if self.component is not None and self.component >= self.heads:
            raise ValueError(f"component: the parts are 0 to {self.heads - 1}, got {self.component}")
        if self.component is not None and self.combine == "routed":
            raise ValueError(
                'component: one part computes alone, combine = "routed" weighs all; give one of them'
            )


class LoraSplit(Adapter):
    """Independent low-rank parts: one alone, all joined with a fixed weight, or all weighted by a router.

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R of each part.
        alpha: LoRA's alpha of each part.
        dropout: probability that an input feature is set to zero; drawn once for all parts.
        options: how many parts, how they are joined, which one trains.
    """

    router_parameters = ("router",)

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
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.options = options
        self.observer: Observer | None = None
        count, component = options.heads, options.component
        averages = component is None and options.combine == "average"
        self.scale = alpha / rank / (count if averages else 1)
        self.A = nn.ParameterList([torch.zeros(rank, in_features) for _ in range(count)])
        self.B = nn.ParameterList([torch.zeros(rank, out_features) for _ in range(count)])
        is_routed = options.combine == "routed"
        self.router = nn.Parameter(torch.zeros(count, in_features)) if is_routed else None
        for number in range(count):
            if is_routed or component not in (None, number):
                self.A[number].requires_grad_(False)
                self.B[number].requires_grad_(False)

    def reset(self, sources: Sequence[torch.Generator], *, random_b: bool) -> None:
        """Draw every A_i Kaiming uniform (a = sqrt 5); set B_i to zero, or draw it as well.

        Args:
            sources: a generator for each part; B_i is drawn after A_i.
            random_b: whether B_i is drawn.
        """
        for a, b, source in zip(self.A, self.B, sources):
            kaiming_uniform_(a, a.shape[1], source)
            with torch.no_grad():
                b.zero_()
            if random_b:
                kaiming_uniform_(b, self.rank, source)

    @property
    def computing(self) -> Sequence[int]:
        """The numbers of the parts that compute: all, or the one that trains."""
        return range(len(self.A)) if self.options.component is None else [self.options.component]

    def mixture(self) -> Mixture:
        """Return what a forward pass computes with: a plain LoRA, of rank R for one part, unless routed."""
        one = self.options.component
        if one is not None or len(self.A) == 1:
            return Mixture(self.A[one or 0], self.B[one or 0], self.router)
        return Mixture(torch.cat(list(self.A)), torch.cat(list(self.B)), self.router)

    def with_fixed_weights(self, weights: Tensor) -> Mixture:
        """Return the plain LoRA that gives each part the same weight for every token. weights: (n)."""
        return Mixture(
            torch.cat(list(self.A)), torch.cat([w * b for w, b in zip(weights.to(self.B[0]), self.B)])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        dropped = F.dropout(x, self.dropout, self.training)
        return mixture_delta(x, dropped, self.mixture(), self.scale, self.observer)

    def factors(self) -> dict[str, Tensor]:
        """Return A0, .. (R, D_in), B0, .. (D_out, R) of the parts that compute, and the router (n, D_in)."""
        parts = {f"A{i}": self.A[i] for i in self.computing}
        parts |= {f"B{i}": self.B[i].t() for i in self.computing}
        return parts if self.router is None else {**parts, "router": self.router}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return every B_i of the parts that compute."""
        return tuple(f"B{i}" for i in self.computing)

    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in); None with a router, as weights depend on the token."""
        return dense_delta(self.mixture(), self.scale) if self.router is None else None


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, LoraSplit]:
    return {p.site.key: _one(p, seed) for p in planned}


def _one(planned: PlannedSite, seed: int) -> LoraSplit:
    site, config, options = planned.site, planned.config, planned.options
    adapter = LoraSplit(
        site.in_features,
        site.out_features,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        options=options,
    )
    sources = [
        generator(seed, "lora", str(site.key), *(("part", number) if number else ()))
        for number in range(options.heads)
    ]
    adapter.reset(sources, random_b=not config.init)
    return adapter


def _keys(adapter: LoraSplit) -> dict[str, str | int]:
    options = adapter.options
    keys: dict[str, str | int] = {"heads": options.heads, "combine": options.combine}
    return keys if options.component is None else {**keys, "component": options.component}


def _optional_tensors(adapter: LoraSplit, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the router where the adapter has one and the file, of parts without a router, does not."""
    return ("router",) if adapter.router is not None and keys.get("combine") != "routed" else ()


ADAPTER: AdapterKind[LoraSplit] = AdapterKind(
    build=_build,
    options=SplitOptions,
    fused_forward=fused_experts_forward,
    keys=_keys,
    optional_tensors=_optional_tensors,
    unmergeable=UNMERGEABLE,
    average=average_lora,
)
