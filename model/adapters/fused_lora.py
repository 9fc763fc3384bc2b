"""Base and LoRA delta of all linears that read one input, as one autograd node.

Source: the formula of `model.adapters.methods.lora`; y_i = x W_i^T + b_i + s_i (x A_i^T) B_i.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdaptedLinear
from model.adapters.block_diagonal import Block, factor_gradient, input_gradient, joined, scale_rows
from model.adapters.rematerialisation import flat_remake_of, noise_for


class _FusedLora(torch.autograd.Function):
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


def fused_lora_forward(x: Tensor, parts: Sequence[AdaptedLinear]) -> list[Tensor]:
    """Return base plus delta of linears with one input. x: (..., D_in) -> one (..., D_out) each.

    Under autocast the products run in its type, as those of the stock layers do; A and B stay as stored.
    """
    if any(part.adapter.draws_dropout for part in parts) and len(parts) > 1:
        return [output for part in parts for output in fused_lora_forward(x, [part])]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    flat = x.reshape(-1, x.shape[-1])
    dropout = parts[0].adapter.dropout if parts[0].adapter.draws_dropout else 0.0
    shapes = tuple(_Shape(part.adapter.blocks, part.strength) for part in parts)
    form = _Form(shapes, dropout, flat_remake_of(x, parts[0].epsilons))
    tensors = (
        *[part.weight for part in parts],
        *[part.bias for part in parts],
        *[part.adapter.A for part in parts],
        *[part.adapter.B for part in parts],
    )
    with torch.autocast(x.device.type, enabled=False):
        outputs = _FusedLora.apply(flat, noise_for(flat, dropout), form, *tensors)
    return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]
