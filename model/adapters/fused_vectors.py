"""Base and vector-scaled delta of all linears that read one input, as one autograd node.

For linears i that read x (B T, D_in), with x' = x or, for a single linear, the dropped x:

    z_i = x' A_i^T                                       (B T, R_i)
    y_i = x W_i^T + bias_i + ((z_i * s_i v_d) B_i) * v_b (B T, D_out_i), B_i (R_i, D_out_i)

Source: the formula of `model.adapters.vector_scaled`; AFLoRA's published layer multiplies the output by v_b.
Differs: v_b is multiplied into B (R D_out numbers instead of B T D_out), and M = z^T g, which the gradient of
B needs anyway, gives those of both vectors: dv_b = s v_d (M * B) and dv_d = s (M * B) v_b. Where B is frozen
and R is large, M costs more than it saves: then B z is saved and dv_b is a sum over tokens. The input is
saved only while an A trains and nothing else can compute it again; linears that share one A compute its
product once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdaptedLinear
from model.adapters.block_diagonal import head_blocks, is_half_precision, linear_plus_delta
from model.adapters.fused import fused
from model.adapters.rematerialisation import Remake, flat_remake_of
from model.adapters.vector_scaled import VectorScaled

PASS = 48
"""Inner dimension R at which a product costs about as much as reading and writing its result twice more."""


class _Tensors(NamedTuple):
    """What one linear computes with."""

    weight: Tensor
    bias: Tensor | None
    A: Tensor
    B: Tensor
    d: Tensor
    b: Tensor


_SIX = len(_Tensors._fields)


class _Form(NamedTuple):
    """What a node needs besides tensors.

    Args:
        scales: s of each linear times its strength.
        remake: computes x again in the backward pass; None: x is saved.
    """

    scales: tuple[float, ...]
    remake: Remake | None


class _FusedVectorScaled(torch.autograd.Function):
    """The formulas of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, form: _Form, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return every y_i. x, dropped: (B T, D_in); tensors: six of each linear, as in `_Tensors`."""
        parts = _parts(tensors)
        source = x if dropped is None else dropped
        downs, places = _distinct([part.A for part in parts])
        z = source @ _stacked(downs, x.dtype).t()  # (B T, sum of distinct R)
        outputs, kept = [], []
        for number, (part, scale) in enumerate(zip(parts, form.scales)):
            inner = z[:, places[number]] * (part.d * scale).to(x.dtype)
            trains_b, needs_vector = _needs(ctx, number, "B"), _needs(ctx, number, "b")
            keeps = needs_vector and not trains_b and len(part.B) > PASS
            if keeps or len(part.B) > len(x):
                product = inner @ part.B.to(x.dtype)
                outputs.append(_around(x, part, product))
                kept.append(product if keeps else None)
            else:
                whole = head_blocks([(len(part.B), 1.0)], part.B.shape[1])
                outputs.append(
                    linear_plus_delta(x, part.weight, part.bias, inner, _folded(part, x.dtype), whole)
                )
                kept.append(None)
        trains_down = any(_needs(ctx, number, "A") for number in range(len(parts)))
        keeps_source = trains_down and (dropped is not None or form.remake is None)
        ctx.save_for_backward(source if keeps_source else None, z, *kept, *tensors)
        ctx.form, ctx.shares = form, dropped is None
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """grads: (B T, D_out) of each linear -> gradients of x, dropped and every linear's six tensors."""
        source, z, *rest = ctx.saved_tensors
        count = len(grads)
        kept, parts = rest[:count], _parts(rest[count:])
        downs, places = _distinct([part.A for part in parts])
        found: list[dict[str, Tensor]] = []
        own: list[Tensor] = []
        dz = torch.zeros_like(z) if len(downs) < count else torch.empty_like(z)
        for number, (g, part, scale) in enumerate(zip(grads, parts, ctx.form.scales)):
            q = _back(g, part)
            found.append(_vector_gradients(ctx, number, part, z[:, places[number]], q, g, kept[number]))
            ours = q * (part.d * scale).to(q.dtype)
            target = dz[:, places[number]]
            target.add_(ours) if len(downs) < count else target.copy_(ours)
            own.append(ours)
            if _needs(ctx, number, "bias"):
                found[-1]["bias"] = g.sum(0)
        wanted = [number for number in range(count) if _needs(ctx, number, "A")]
        if wanted:
            source = ctx.form.remake() if source is None else source
            whole = dz.t() @ source if len(wanted) == len(downs) == count else None
            for number in wanted:
                grad = own[number].t() @ source if whole is None else whole[places[number]]
                found[number]["A"] = grad.to(parts[number].A.dtype)
        stacked, dx = _stacked(downs, dz.dtype), None
        if ctx.needs_input_grad[0]:
            dx = grads[0] @ parts[0].weight.to(dz.dtype)
            for g, part in zip(grads[1:], parts[1:]):
                dx.addmm_(g, part.weight.to(dz.dtype))
            if ctx.shares:
                dx.addmm_(dz, stacked)
        dropped_grad = dz @ stacked if ctx.needs_input_grad[1] else None
        return dx, dropped_grad, None, *(one.get(name) for one in found for name in _Tensors._fields)


def _needs(ctx: Any, number: int, name: str) -> bool:
    """Return whether a linear's tensor, named as in `_Tensors`, needs a gradient."""
    return ctx.needs_input_grad[3 + number * _SIX + _Tensors._fields.index(name)]


def _parts(tensors: Sequence[Any]) -> list[_Tensors]:
    """Return a node's tensors, linear by linear."""
    return [_Tensors(*tensors[start : start + _SIX]) for start in range(0, len(tensors), _SIX)]


def _distinct(downs: Sequence[Tensor]) -> tuple[list[Tensor], list[slice]]:
    """Return every A once, and for each linear the rows of its own among them."""
    starts: dict[int, slice] = {}
    found, row = [], 0
    for down in downs:
        if down.data_ptr() not in starts:
            starts[down.data_ptr()] = slice(row, row + len(down))
            found.append(down)
            row += len(down)
    return found, [starts[down.data_ptr()] for down in downs]


def _stacked(downs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the A's one below the other: (sum of R, D_in)."""
    return downs[0].to(dtype) if len(downs) == 1 else torch.cat(list(downs)).to(dtype)


def _around(x: Tensor, part: _Tensors, product: Tensor) -> Tensor:
    """Return x W^T + bias + product * v_b, rounded as `linear_plus_delta` does. product: (B T, D_out)."""
    weight, b = part.weight.to(x.dtype), part.b.to(x.dtype)
    bias = None if part.bias is None else part.bias.to(x.dtype)
    if not is_half_precision(x):
        return F.linear(x, weight, bias).addcmul_(product, b)
    return (product * b if bias is None else torch.addcmul(bias, product, b)).addmm_(x, weight.t())


def _folded(part: _Tensors, dtype: torch.dtype) -> Tensor:
    """Return B with v_b multiplied into it: (R, D_out)."""
    return (part.B * part.b).to(dtype)


def _back(g: Tensor, part: _Tensors) -> Tensor:
    """Return (g * v_b) B^T, v_b multiplied into the smaller of both. g: (B T, D_out) -> (B T, R)."""
    if len(part.B) > len(g):
        return (g * part.b.to(g.dtype)) @ part.B.to(g.dtype).t()
    return g @ _folded(part, g.dtype).t()


def _vector_gradients(
    ctx: Any, number: int, part: _Tensors, z: Tensor, q: Tensor, g: Tensor, kept: Tensor | None
) -> dict[str, Tensor]:
    """Return the gradients of B, v_d and v_b that are needed.

    Args:
        ctx: autograd's context; holds which gradients are needed.
        number: of the linear.
        part: its tensors.
        z: (B T, R), x' A^T.
        q: (B T, R), the gradient of z * s v_d, before s v_d.
        g: (B T, D_out), the output's gradient.
        kept: (B T, D_out), the product before v_b, where it was saved.
    """
    found, scale, dtype = {}, ctx.form.scales[number], part.b.dtype
    if kept is not None:
        found["b"] = (g * kept).sum(0, dtype=dtype)
        found["d"] = (z * q).sum(0, dtype=dtype) * scale
    elif any(_needs(ctx, number, name) for name in ("B", "d", "b")):
        m = (z.t() @ g).to(dtype)  # (R, D_out)
        product = m * part.B
        found["b"] = (part.d * scale) @ product
        found["d"] = product @ (part.b * scale)
        if _needs(ctx, number, "B"):
            found["B"] = m.mul_(part.b).mul_((part.d * scale).unsqueeze(1))
    return {name: value for name, value in found.items() if _needs(ctx, number, name)}


@fused
def fused_vectors_forward(x: Tensor, linears: Sequence[AdaptedLinear[VectorScaled]]) -> Sequence[Tensor]:
    """Return base plus delta of linears with one input.

    Args:
        x: (..., D_in).
        linears: all read x; several only without dropout.

    Returns:
        One (B T, D_out) for each linear.
    """
    flat, first = x.reshape(-1, x.shape[-1]), linears[0]
    dropped = F.dropout(flat, first.adapter.dropout) if first.adapter.draws_dropout else None
    scales = tuple(linear.adapter.scale * linear.strength for linear in linears)
    form = _Form(scales, flat_remake_of(x, first.epsilons))
    tensors = [
        tensor
        for weight, bias, adapter, *_ in linears
        for tensor in _Tensors(weight, bias, adapter.matrix("A"), adapter.matrix("B"), adapter.d, adapter.b)
    ]
    return _FusedVectorScaled.apply(flat, dropped, form, *tensors)
