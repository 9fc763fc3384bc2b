"""Several low-rank experts at one linear, weighted by a router for every token, or all alike.

N experts of rank R, x (..., D_in):

    w(x) = softmax(W_r x)                                    (..., N), W_r (N, D_in) without bias
    delta = (alpha / R) sum_i w_i(x) B_i A_i drop(x)         (..., D_out)

All A_i are rows of one matrix and all B_i, transposed, rows of another, so that nothing loops over experts: z
= A drop(x) is computed once, each expert's ranks of z are multiplied by its weight, and the weighted z of all
experts meets all of their B_i in one product. Experts that share one A have one z of R numbers. The router
reads x itself, not the dropped one, and computes in float32 under any precision.

Source: HydraLoRA (`model.adapters.methods.hydra`), LoRAMoE (`model.adapters.methods.lora_moe`).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, LoraForm, PlannedSite
from model.adapters.initialisation import kaiming_uniform_
from model.tensors.random_state import generator

UNMERGEABLE = (
    "weights its parts by token, so no single matrix can be added to the weight; tools.average_router"
    " makes a LoRA of their average weights over texts and measures its error"
)
_BLOCK_NUMBERS = 2**18
"""Numbers of the input that a CPU widens to float32 at a time: one mebibyte of the result."""
_FEW_ROUTERS = 12
"""Up to so many router rows, W_r x^T is faster than x W_r^T."""
Observer = Callable[[Tensor], None]
"""Is called with the weights (B T, N) of every forward pass."""


class Mixture(NamedTuple):
    """The tensors that one forward pass computes with.

    Args:
        A: (R, D_in) that all experts share, or (N R, D_in), the A_i one below the other.
        B: (N R, D_out), the B_i transposed, one below the other.
        router: W_r (N, D_in); None: nothing is weighted, A and B are those of a plain LoRA.
    """

    A: Tensor
    B: Tensor
    router: Tensor | None = None

    @property
    def rank(self) -> int:
        """R of each expert."""
        return self.B.shape[0] // (1 if self.router is None else self.router.shape[0])


class MixtureAdapter(Protocol):
    """An adapter whose delta is that of a `Mixture`."""

    dropout: float
    scale: float
    observer: Observer | None

    @property
    def draws_dropout(self) -> bool:
        """Whether a forward pass draws dropout noise now."""
        ...

    def mixture(self) -> Mixture:
        """Return the tensors that a forward pass computes with."""
        ...

    def with_fixed_weights(self, weights: Tensor) -> Mixture:
        """Return the plain LoRA that gives each expert the same weight for every token. weights: (N)."""
        ...


def router_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that routers compute in: float64 stays, every other is float32."""
    return dtype if dtype == torch.float64 else torch.float32


def router_weights(x: Tensor, router: Tensor) -> Tensor:
    """Return softmax(W_r x) in `router_dtype`, also under autocast. x: (..., D_in) -> (..., N)."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(router_dtype(x.dtype))
        return F.linear(x, router.to(x.dtype)).softmax(-1)


def router_logits(x: Tensor, router: Tensor) -> Tensor:
    """Return W_r x in `router_dtype` without widening all of x at once; no gradient flows.

    A lower precision's numbers are exact in float32, so only sums are rounded. On a CPU rows are widened in
    blocks that fit its cache, and few routers are multiplied from the left, where its products are faster.

    Args:
        x: (B T, D_in).
        router: (experts, D_in), of one router or several.

    Returns:
        (B T, experts).
    """
    dtype = router_dtype(x.dtype)
    router = router.to(dtype)
    if x.dtype == dtype or x.device.type != "cpu" or not len(x):
        return x.to(dtype) @ router.t()
    blocks = x.tensor_split(-(-x.numel() // _BLOCK_NUMBERS))
    if len(router) <= _FEW_ROUTERS:
        return torch.cat([router @ block.to(dtype).t() for block in blocks], 1).t()
    return torch.cat([block.to(dtype) @ router.t() for block in blocks])


def weigh_ranks(z: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Multiply the ranks of each expert by its weight.

    Args:
        z: (..., R) of an A that all experts share, or (..., N R).
        weights: (..., N).
        rank: R.

    Returns:
        (..., N R) in z's type.
    """
    return (z.unflatten(-1, (-1, rank)) * weights.unsqueeze(-1)).flatten(-2).to(z.dtype)


def mixture_delta(
    x: Tensor, dropped: Tensor, mixture: Mixture, scale: float, observer: Observer | None
) -> Tensor:
    """Return the experts' weighted sum by plain operations.

    Args:
        x: (..., D_in), what the router reads.
        dropped: (..., D_in), x after dropout, what the experts read.
        mixture: their tensors.
        scale: alpha / R.
        observer: is called with the weights.

    Returns:
        (..., D_out).
    """
    z = F.linear(dropped, mixture.A.to(x.dtype)) * scale
    if mixture.router is not None:
        weights = router_weights(x, mixture.router)
        z = weigh_ranks(z, weights, mixture.rank)
        if observer is not None:
            observer(weights.detach().flatten(0, -2))
    return z @ mixture.B.to(z.dtype)


def dense_delta(mixture: Mixture, scale: float) -> Tensor:
    """Return scale B A of a plain LoRA: (D_out, D_in)."""
    return scale * (mixture.B.t() @ mixture.A)


class Experts(Adapter):
    """Experts with a router, or with the weight 1 / N each.

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R of each expert, at least 1.
        heads: N, at least 1.
        alpha: LoRA's alpha.
        dropout: probability that an input feature is set to zero before A; drawn once for all experts.
        shared_a: one A for all experts, as in HydraLoRA; otherwise each has its own.
        routed: a router weighs them; otherwise all weigh the same, and there is no router.
    """

    router_parameters = ("router",)

    def __init__(  # noqa: PLR0913 - flat arguments: the two last choose the method
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int,
        heads: int,
        alpha: float,
        dropout: float,
        shared_a: bool,
        routed: bool,
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.heads = heads
        self.scale = alpha / rank
        self.shared_a = shared_a
        self.observer: Observer | None = None
        self.A = nn.Parameter(torch.zeros(rank if shared_a else heads * rank, in_features))
        self.B = nn.Parameter(torch.zeros(heads * rank, out_features))
        self.router = nn.Parameter(torch.zeros(heads, in_features)) if routed else None

    def reset(self, source: torch.Generator, router_source: torch.Generator, *, random_b: bool) -> None:
        """Draw A and the router Kaiming uniform (a = sqrt 5); set B to zero, or draw it as well.

        Args:
            source: the generator of A and, after it, of B.
            router_source: that of the router.
            random_b: draw every B_i, as `init_lora_weights = false` wants it.
        """
        kaiming_uniform_(self.A, self.A.shape[1], source)
        if self.router is not None:
            kaiming_uniform_(self.router, self.router.shape[1], router_source)
        with torch.no_grad():
            self.B.zero_()
        if random_b:
            kaiming_uniform_(self.B, self.rank, source)

    def mixture(self) -> Mixture:
        """Return the tensors that a forward pass computes with."""
        if self.router is not None:
            return Mixture(self.A, self.B, self.router)
        return self.with_fixed_weights(self.B.new_full((self.heads,), 1 / self.heads))

    def with_fixed_weights(self, weights: Tensor) -> Mixture:
        """Return the plain LoRA that gives each expert the same weight for every token. weights: (N)."""
        weighted = self.B.unflatten(0, (self.heads, -1)) * weights.to(self.B.dtype).view(-1, 1, 1)
        return Mixture(self.A, weighted.sum(0) if self.shared_a else weighted.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        dropped = F.dropout(x, self.dropout, self.training)
        return mixture_delta(x, dropped, self.mixture(), self.scale, self.observer)

    def factors(self) -> dict[str, Tensor]:
        """Return A (R or N R, D_in), B0, B1, .. (D_out, R) and the router (N, D_in), if there is one."""
        bs = {f"B{number}": b.t() for number, b in enumerate(self.B.split(self.rank))}
        return {"A": self.A, **bs, **({} if self.router is None else {"router": self.router})}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return every B_i."""
        return tuple(f"B{number}" for number in range(self.heads))

    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in); None with a router, as weights depend on the token."""
        return None if self.router is not None else dense_delta(self.mixture(), self.scale)


def build_experts(planned: PlannedSite, seed: int, *, shared_a: bool, routed: bool) -> Experts:
    """Return the experts that a site's plan asks for, at their start; A starts as LoRA's would.

    Args:
        planned: the site and its plan; its options give the number of heads.
        seed: the run's seed; the start depends on it and the site alone.
        shared_a: one A for all experts.
        routed: a router weighs them.
    """
    site, config = planned.site, planned.config
    adapter = Experts(
        site.in_features,
        site.out_features,
        rank=config.rank,
        heads=planned.options.heads,
        alpha=config.alpha,
        dropout=config.dropout,
        shared_a=shared_a,
        routed=routed,
    )
    source, router_source = (generator(seed, purpose, str(site.key)) for purpose in ("lora", "router"))
    adapter.reset(source, router_source, random_b=not config.init)
    return adapter


def average_lora(adapter: MixtureAdapter, weights: Tensor | None) -> LoraForm:
    """Return the LoRA whose experts have the same weight for every token: A, B (D_out, R), scale.

    Args:
        adapter: whose experts are averaged.
        weights: (N), mean weight of each expert; None for an adapter without a router.
    """
    mixture = adapter.mixture() if weights is None else adapter.with_fixed_weights(weights)
    return mixture.A, mixture.B.t(), adapter.scale
