"""Several low-rank parts beside one linear, weighed by a router for every token, or all alike.

N experts of rank R, x: (..., D_in):

    w(x) = softmax(W_r x)                                    (..., N), W_r (N, D_in) without bias
    delta = (alpha / R) sum_i w_i(x) B_i A_i drop(x)         (..., D_out)

Every A_i lies in one matrix and every B_i, transposed, in another, so that nothing loops over experts:
z = A drop(x) is computed once, each expert's ranks of z are multiplied by its weight, and the weighted z of
all experts meets all of their B's in one product. Experts that share one A have one z of R numbers.
The router reads x itself, not the dropped one, and computes in float32 under any precision.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.adapter import Adapter, LoraForm, PlannedSite
from model.adapters.initialisation import kaiming_uniform_
from model.tensors.random_state import generator

UNMERGEABLE = (
    "weighs its parts anew for every token, so no one matrix can be added to the weight; tools.average_router"
    " makes a LoRA of their average weights over texts and measures its error"
)
_WIDENED = 2**18
"""Numbers of the input that a CPU widens at a time: a mebibyte."""
_FEW = 12
"""Up to so many routers' rows are faster from the left."""
Observer = Callable[[Tensor], None]
"""Sees the weights (tokens, N) of every forward pass."""


class Mixture(NamedTuple):
    """The tensors of one computation.

    Args:
        A: (R, D_in) that all experts share, or (N R, D_in): every A_i under the other.
        B: (N R, D_out): every B_i transposed, one under the other.
        router: (N, D_in); None: nothing is weighed, A and B are those of a plain LoRA.
    """

    A: Tensor
    B: Tensor
    router: Tensor | None = None

    @property
    def rank(self) -> int:
        """R of each expert."""
        return self.B.shape[0] // (1 if self.router is None else self.router.shape[0])


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type that routers compute in: float64 stays, everything else is float32."""
    return dtype if dtype == torch.float64 else torch.float32


def router_weights(x: Tensor, router: Tensor) -> Tensor:
    """Return softmax(W_r x) in float32 (float64 stays), also under autocast. x: (..., D_in) -> (..., N)."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(wide(x.dtype))
        return F.linear(x, router.to(x.dtype)).softmax(-1)


def router_logits(x: Tensor, router: Tensor) -> Tensor:
    """Return W_r x in float32 (float64 stays) without widening all of x at once; no gradient flows.

    A lower precision's numbers are exact in float32, so only sums are rounded. On a CPU rows are widened
    while they fit its cache, and few routers are multiplied from the left, where its products are faster.

    Args:
        x: (N, D_in).
        router: (experts, D_in), of one router or several.

    Returns:
        (N, experts).
    """
    dtype = wide(x.dtype)
    router = router.to(dtype)
    if x.dtype == dtype or x.device.type != "cpu" or not len(x):
        return x.to(dtype) @ router.t()
    parts = x.tensor_split(-(-x.numel() // _WIDENED))
    if len(router) <= _FEW:
        return torch.cat([router @ part.to(dtype).t() for part in parts], 1).t()
    return torch.cat([part.to(dtype) @ router.t() for part in parts])


def weighted(z: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Multiply the ranks of each expert by its weight.

    Args:
        z: (..., R) of an A that all experts share, or (..., N R).
        weights: (..., N).
        rank: R.

    Returns:
        (..., N R) in z's type.
    """
    return (z.unflatten(-1, (-1, rank)) * weights.unsqueeze(-1)).flatten(-2).to(z.dtype)


def delta(x: Tensor, dropped: Tensor, mixture: Mixture, scale: float, observer: Observer | None) -> Tensor:
    """Return the experts' sum by plain operations. x, dropped: (..., D_in) -> (..., D_out)."""
    z = F.linear(dropped, mixture.A.to(x.dtype)) * scale
    if mixture.router is not None:
        weights = router_weights(x, mixture.router)
        z = weighted(z, weights, mixture.rank)
        if observer is not None:
            observer(weights.detach().flatten(0, -2))
    return z @ mixture.B.to(z.dtype)


class Experts(Adapter):
    """Experts with a router, or weighed 1 / N each.

    Args:
        in_features: D_in.
        out_features: D_out.
        rank: R of each expert, at least 1.
        heads: N, at least 1.
        alpha: scaling constant.
        dropout: probability that an input feature is dropped before A; drawn once for all experts.
        shares: one A for all experts; otherwise each has its own.
        routes: a router weighs them; otherwise all weigh the same, and there is no router.
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
        shares: bool,
        routes: bool,
    ) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)
        self.heads = heads
        self.scale = alpha / rank
        self.shares = shares
        self.observer: Observer | None = None
        self.A = nn.Parameter(torch.zeros(rank if shares else heads * rank, in_features))
        self.B = nn.Parameter(torch.zeros(heads * rank, out_features))
        self.router = nn.Parameter(torch.zeros(heads, in_features)) if routes else None

    def reset(self, source: torch.Generator, routing: torch.Generator) -> None:
        """Draw A and the router Kaiming uniform (a = sqrt 5), each from its generator; set B to zero."""
        kaiming_uniform_(self.A, self.A.shape[1], source)
        if self.router is not None:
            kaiming_uniform_(self.router, self.router.shape[1], routing)
        with torch.no_grad():
            self.B.zero_()

    def mixture(self) -> Mixture:
        """Return what a forward pass computes with."""
        if self.router is not None:
            return Mixture(self.A, self.B, self.router)
        return self.folded(self.B.new_full((self.heads,), 1 / self.heads))

    def folded(self, weights: Tensor) -> Mixture:
        """Return the plain LoRA that weighs the experts alike for every token. weights: (N)."""
        apart = self.B.unflatten(0, (self.heads, -1)) * weights.to(self.B.dtype).view(-1, 1, 1)
        return Mixture(self.A, apart.sum(0) if self.shares else apart.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        dropped = F.dropout(x, self.dropout, self.training)
        return delta(x, dropped, self.mixture(), self.scale, self.observer)

    def factors(self) -> dict[str, Tensor]:
        """Return A (R or N R, D_in), B0, B1, .. (D_out, R) and the router (N, D_in), if there is one."""
        bs = {f"B{number}": b.t() for number, b in enumerate(self.B.split(self.rank))}
        return {"A": self.A, **bs, **({} if self.router is None else {"router": self.router})}

    def zero_initialised(self) -> tuple[str, ...]:
        """Return every B_i."""
        return tuple(f"B{number}" for number in range(self.heads))

    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in); None with a router, which asks every token."""
        return None if self.router is not None else product(self.mixture(), self.scale)


def experts(planned: PlannedSite, seed: int, *, shares: bool, routes: bool) -> Experts:
    """Return the experts that a site's plan asks for, at their start.

    Args:
        planned: the site and its plan; its options say the number of heads.
        seed: the run's seed.
        shares: one A for all experts.
        routes: a router weighs them.
    """
    site, config = planned.site, planned.config
    adapter = Experts(
        site.in_features,
        site.out_features,
        rank=config.rank,
        heads=planned.options.heads,
        alpha=config.alpha,
        dropout=config.dropout,
        shares=shares,
        routes=routes,
    )
    return started(adapter, seed, str(site.key), draws_both=not config.init)


def started(adapter: Experts, seed: int, site: str, *, draws_both: bool) -> Experts:
    """Give experts their start, which depends on seed and site alone: their A begins as LoRA's would.

    Args:
        adapter: the experts.
        seed: the run's seed.
        site: where they sit.
        draws_both: fill every B at random too, as `init_lora_weights = false` wants it.
    """
    source = generator(seed, "lora", site)
    adapter.reset(source, generator(seed, "router", site))
    if draws_both:
        kaiming_uniform_(adapter.B, adapter.rank, source)
    return adapter


def averaged(adapter: Any, weights: Tensor | None) -> LoraForm:
    """Return A (R, D_in), B (D_out, R) and scale of the LoRA whose parts weigh the same for every token.

    Args:
        adapter: experts, or any adapter whose `mixture()` has no router.
        weights: (N), mean weight of each expert; None without a router.
    """
    mixture = adapter.mixture() if weights is None else adapter.folded(weights)
    return mixture.A, mixture.B.t(), adapter.scale


def product(mixture: Mixture, scale: float) -> Tensor:
    """Return scale B A of a plain LoRA: (D_out, D_in)."""
    return scale * (mixture.B.t() @ mixture.A)
