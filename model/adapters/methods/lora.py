"""LoRA: a frozen linear plus a trainable product of two thin matrices.

Source: Hu et al. 2021, arXiv 2106.09685, equation 3: h = W0 x + (alpha / R) B A x.
Differs: nothing in the formula. B is kept transposed in memory, (R, D_out), so that both products of the
backward pass run along rows; one autograd node computes base and delta of all linears that read one input.
A projection planned by head gets `model.adapters.lora_by_head`, whose B is block-diagonal, and the same node.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdapterKind, Part, PlannedSite
from model.adapters.block_diagonal import Block, factor_gradient, input_gradient, joined, scale_rows, tiled
from model.adapters.initialisation import kaiming_uniform_
from model.adapters.lora_by_head import Head, HeadLora
from model.adapters.rematerialisation import flat_remake_of, noise_for
from model.site import SiteKey
from model.tensors.random_state import generator


class Lora(nn.Module):
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
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.scale = alpha / rank
        self.dropout = dropout
        self.blocks = tiled([(rank, self.scale)], out_features)
        self.A = nn.Parameter(torch.zeros(rank, in_features))
        self.B = nn.Parameter(torch.zeros(rank, out_features))  # the transpose of the paper's B

    def reset(self, source: torch.Generator) -> None:
        """Draw A Kaiming uniform (a = sqrt 5) from the generator and set B to zero."""
        kaiming_uniform_(self.A, self.A.shape[1], source)
        with torch.no_grad():
            self.B.zero_()

    @property
    def drops(self) -> bool:
        """Whether this forward pass draws dropout noise."""
        return self.training and self.dropout > 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        z = F.linear(F.dropout(x, self.dropout, self.training), self.A.to(x.dtype))
        return (z * self.scale) @ self.B.to(z.dtype)

    def factors(self) -> dict[str, Tensor]:
        """Return A (R, D_in) and B (D_out, R)."""
        return {"A": self.A, "B": self.B.t()}

    def merged_delta(self) -> Tensor:
        """Return (alpha / R) B A: (D_out, D_in)."""
        return self.scale * (self.B.t() @ self.A)

    def export(self) -> tuple[Tensor, Tensor, float]:
        """Return A (R, D_in), B (D_out, R) and alpha / R."""
        return self.A, self.B.t(), self.scale

    def load(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Take A (R, D_in) and B (D_out, R) of a file whose own scale is `scale`; B is rescaled to ours."""
        with torch.no_grad():
            self.A.copy_(a)
            ratio = scale / self.scale
            self.B.copy_(b.t() if ratio == 1 else b.t() * ratio)


class _JointLinear(torch.autograd.Function):
    """y_i = x W_i^T + b_i + z_i B_i with z_i = s_i d A_i^T, for linears i that read the same x, as one node.

    d is x itself, or a single linear's x times its dropout noise; B_i has the blocks of `block_diagonal`.
    Saves z, which noise is not zero, and x only while an A trains and nothing else can make it again;
    every sum is accumulated in place by a product.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noise: Tensor | None, form: "_Form", *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """x, noise: (N, D_in); tensors: every W (D_out, D_in), every bias, A (R, D_in), B (R, width)."""
        weights, biases, downs, ups = _quarters(tensors)
        d = x if noise is None else x * noise
        z = d @ _stacked(downs, x.dtype).t()  # (N, sum of R)
        zs = _columns(z, [a.shape[0] for a in downs])
        outputs = tuple(
            joined(x, w, b, scale_rows(part, shape.blocks, shape.strength), up, shape.blocks)
            for w, b, part, up, shape in zip(weights, biases, zs, ups, form.shapes)
        )
        count = len(weights)
        ctx.trains_down = any(ctx.needs_input_grad[3 + 2 * count : 3 + 3 * count])
        kept = x if ctx.trains_down and form.remake is None else None
        ctx.save_for_backward(kept, None if noise is None else noise != 0, z, *weights, *downs, *ups)
        ctx.form = form
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """grads: (N, D_out) of each linear -> gradients of x, biases, A and B."""
        x, passed, z, *saved = ctx.saved_tensors
        shapes = ctx.form.shapes
        count = len(shapes)
        weights, downs, ups = saved[:count], saved[count : 2 * count], saved[2 * count :]
        needs = ctx.needs_input_grad
        ranks = [a.shape[0] for a in downs]
        ups_grad = [
            factor_gradient(part, g, shape.blocks).to(up.dtype) if needs[3 + 3 * count + i] else None
            for i, (part, g, up, shape) in enumerate(zip(_columns(z, ranks), grads, ups, shapes))
        ]
        biases_grad = [g.sum(0) if needs[3 + count + i] else None for i, g in enumerate(grads)]
        dz = torch.empty(z.shape, dtype=grads[0].dtype, device=z.device)
        for part, g, up, shape in zip(_columns(dz, ranks), grads, ups, shapes):
            input_gradient(part, g, up.to(g.dtype), shape.blocks, shape.strength)
        noise = None if passed is None else passed.to(z.dtype).div_(1.0 - ctx.form.dropout)
        downs_grad: Sequence[Tensor | None] = [None] * count
        if ctx.trains_down:
            x = ctx.form.remake() if x is None else x
            stacked_grad = dz.t() @ (x if noise is None else x * noise)
            downs_grad = [part.to(a.dtype) for part, a in zip(stacked_grad.split(ranks), downs)]
        dx = _input_gradient(grads, weights, dz, _stacked(downs, dz.dtype), noise) if needs[0] else None
        return dx, None, None, *[None] * count, *biases_grad, *downs_grad, *ups_grad


def _input_gradient(
    grads: Sequence[Tensor], weights: Sequence[Tensor], dz: Tensor, down: Tensor, noise: Tensor | None
) -> Tensor:
    """Return sum_i g_i W_i + (dz A) noise: (N, D_in)."""
    dx = grads[0] @ weights[0].to(dz.dtype)
    for g, w in zip(grads[1:], weights[1:]):
        dx.addmm_(g, w.to(dz.dtype))
    return dx.addmm_(dz, down) if noise is None else dx.add_((dz @ down).mul_(noise))


class _Shape(NamedTuple):
    """How a linear's B lies in blocks, and what multiplies its delta beside their scales."""

    blocks: tuple[Block, ...]
    strength: float


class _Form(NamedTuple):
    """What a node needs beside tensors: shapes of its linears, its dropout, how to make x again if known."""

    shapes: tuple[_Shape, ...]
    dropout: float
    remake: Callable[[], Tensor] | None


def _quarters(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    count = len(tensors) // 4
    return tuple(tensors[k * count : (k + 1) * count] for k in range(4))


def _columns(z: Tensor, ranks: Sequence[int]) -> Sequence[Tensor]:
    """Return each linear's columns of z: (N, sum of R) -> (N, R) each."""
    return (z,) if len(ranks) == 1 else z.split_with_sizes(ranks, 1)


def _stacked(downs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return every A under the other: (sum of R, D_in)."""
    return downs[0].to(dtype) if len(downs) == 1 else torch.cat(list(downs)).to(dtype)


def joint(x: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    """Return base plus delta of linears with one input. x: (..., D_in) -> one (..., D_out) each.

    Under autocast the products run in its type, as those of the stock layers do; A and B stay as stored.
    """
    if any(part.adapter.drops for part in parts) and len(parts) > 1:
        return [output for part in parts for output in joint(x, [part])]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    flat = x.reshape(-1, x.shape[-1])
    dropout = parts[0].adapter.dropout if parts[0].adapter.drops else 0.0
    shapes = tuple(_Shape(part.adapter.blocks, part.strength) for part in parts)
    form = _Form(shapes, dropout, flat_remake_of(x, parts[0].epsilons))
    tensors = (
        *[part.weight for part in parts],
        *[part.bias for part in parts],
        *[part.adapter.A for part in parts],
        *[part.adapter.B for part in parts],
    )
    with torch.autocast(x.device.type, enabled=False):
        outputs = _JointLinear.apply(flat, noise_for(flat, dropout), form, *tensors)
    return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]


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
    joint=joint,
    export=lambda adapter: adapter.export(),
    load=lambda adapter, a, b, scale: adapter.load(a, b, scale),
    by_head=True,
)
