"""Base and LoRA delta of all linears that read one input, as one autograd node.

For linears i that read x (B T, D_in), with s_i = strength_i alpha_i / R_i:

    d = x, or x * noise under dropout (then a node has one linear)
    z_i = s_i d A_i^T                                    (B T, R_i), all i in one product
    y_i = x W_i^T + b_i + z_i B_i                        (B T, D_out_i), B_i block-diagonal where heads differ

and backward, with g_i the gradient of y_i:

    dB_i = z_i^T g_i     dz_i = s_i g_i B_i^T     dA_i = dz_i^T d     dx = sum_i g_i W_i + (dz A) noise

Source: the formula of `model.adapters.methods.lora`.
Differs: saved for the backward pass are z, where the noise is not zero, and x only while an A trains and
nothing else can compute x again (`model.adapters.rematerialisation`). Every sum is accumulated in place by a
product.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdaptedLinear
from model.adapters.block_diagonal import (
    Block,
    factor_gradient,
    input_gradient,
    linear_plus_delta,
    scale_rows,
)
from model.adapters.fused import fused
from model.adapters.rematerialisation import Remake, dropout_noise, flat_remake_of


class LowRank(Protocol):
    """An adapter that is one product of two factors, the second of them in blocks."""

    dropout: float
    blocks: tuple[Block, ...]

    @property
    def A(self) -> Tensor:
        """(R, D_in)."""
        ...

    @property
    def B(self) -> Tensor:
        """(R, width), the blocks of `model.adapters.block_diagonal`."""
        ...

    @property
    def draws_dropout(self) -> bool:
        """Whether a forward pass draws dropout noise now."""
        ...


class _Shape(NamedTuple):
    """Where the heads of a linear's B lie, and what multiplies its delta besides their scales."""

    blocks: tuple[Block, ...]
    strength: float


class _Form(NamedTuple):
    """What a node needs besides tensors.

    Args:
        shapes: of its linears.
        dropout: probability that the noise was drawn with.
        remake: computes x again in the backward pass; None: x is saved.
    """

    shapes: tuple[_Shape, ...]
    dropout: float
    remake: Remake | None


class _FusedLora(torch.autograd.Function):
    """The formulas of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noise: Tensor | None, form: _Form, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Return every y_i.

        Args:
            ctx: autograd's.
            x: (B T, D_in).
            noise: (B T, D_in), what dropout multiplies x by, or None.
            form: what is known besides tensors.
            tensors: every W (D_out, D_in), every b (D_out) or None, every A (R, D_in), every B (R, width).
        """
        weights, biases, downs, ups = _quarters(tensors)
        d = x if noise is None else x * noise
        z = d @ _stacked(downs, x.dtype).t()  # (B T, sum of R)
        zs = _columns(z, [a.shape[0] for a in downs])
        outputs = tuple(
            linear_plus_delta(x, w, b, scale_rows(part, shape.blocks, shape.strength), up, shape.blocks)
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
        """grads: (B T, D_out) of each linear -> gradients of x, biases, A and B."""
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
    """Return sum_i g_i W_i + (dz A) noise: (B T, D_in)."""
    dx = grads[0] @ weights[0].to(dz.dtype)
    for g, w in zip(grads[1:], weights[1:]):
        dx.addmm_(g, w.to(dz.dtype))
    return dx.addmm_(dz, down) if noise is None else dx.add_((dz @ down).mul_(noise))


def _quarters(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], ...]:
    """Return the weights, biases, A's and B's of a node's tensors."""
    count = len(tensors) // 4
    return tuple(tensors[k * count : (k + 1) * count] for k in range(4))


def _columns(z: Tensor, ranks: Sequence[int]) -> Sequence[Tensor]:
    """Return each linear's columns of z: (B T, sum of R) -> (B T, R) each."""
    return (z,) if len(ranks) == 1 else z.split_with_sizes(ranks, 1)


def _stacked(downs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the A's one below the other: (sum of R, D_in)."""
    return downs[0].to(dtype) if len(downs) == 1 else torch.cat(list(downs)).to(dtype)


@fused
def fused_lora_forward(x: Tensor, linears: Sequence[AdaptedLinear[LowRank]]) -> Sequence[Tensor]:
    """Return base plus delta of linears with one input.

    Args:
        x: (..., D_in).
        linears: all read x; several only without dropout.

    Returns:
        One (B T, D_out) for each linear.
    """
    flat, first = x.reshape(-1, x.shape[-1]), linears[0]
    dropout = first.adapter.dropout if first.adapter.draws_dropout else 0.0
    shapes = tuple(_Shape(linear.adapter.blocks, linear.strength) for linear in linears)
    form = _Form(shapes, dropout, flat_remake_of(x, first.epsilons))
    tensors = (
        *[linear.weight for linear in linears],
        *[linear.bias for linear in linears],
        *[linear.adapter.A for linear in linears],
        *[linear.adapter.B for linear in linears],
    )
    return _FusedLora.apply(flat, dropout_noise(flat, dropout), form, *tensors)
