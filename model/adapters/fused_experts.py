"""Base and experts of all linears that read one input, as one autograd node.

Source: the formula of `model.adapters.experts`; the layout of sums follows `model.adapters.methods.lora`.
Routers and A's of all linears are one product where they read the same tensor in the same type; the delta of
all experts is added to the base output in place. Saved are z and the weights, and the input where nothing can
make it again; the weighted z is made again for the gradient of B. Logits, weights and z lie with tokens along
rows, (.., N), so that weighing runs along memory whatever the number of experts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdaptedLinear
from model.adapters.block_diagonal import joined, tiled
from model.adapters.experts import Observer, router_logits, wide
from model.adapters.rematerialisation import Remake, flat_remake_of


class _Form(NamedTuple):
    """What one linear's experts are beside their tensors: N (0 without a router), R, scale, observer."""

    experts: int
    rank: int
    scale: float
    observer: Observer | None


_Known = tuple[tuple[_Form, ...], tuple[Remake | None, Remake | None]]
"""The forms, and how to make x and the dropped x again where they need not be kept."""


class _FusedExperts(torch.autograd.Function):
    """y_i = x W_i^T + b_i + weighted(s_i d A_i^T, softmax(x R_i^T)) B_i for linears i that read the same x.

    d is x itself, or the dropped x of a single linear.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, known: _Known, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """x, dropped: (N, D_in); tensors: every W, bias, router (or None), A and B."""
        ctx.forms, ctx.remakes = known
        weights, biases, routers, downs, ups = _fifths(tensors)
        d = x if dropped is None else dropped
        logits, z = _products(x, d, _stacked(routers), _stacked(downs))
        mixes = [part.softmax(0) for part in logits.split([form.experts for form in ctx.forms])]
        outputs = []
        for w, b, z_i, mix, up, form in zip(weights, biases, _split(z, downs), mixes, ups, ctx.forms):
            if form.observer is not None and form.experts:
                form.observer(mix.t())
            whole = tiled([(len(up), 1.0)], up.shape[1])
            outputs.append(joined(x, w, b, _mixed(z_i, mix, form).t(), up, whole))
        kept = [None if make else t for t, make in zip((x, dropped), ctx.remakes)]
        ctx.save_for_backward(*kept, z, *mixes, *weights, *routers, *downs, *ups)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """grads: (N, D_out) of each linear -> gradients of x, dropped, biases, routers, A and B."""
        x, dropped, z, *saved = ctx.saved_tensors
        x, dropped = (make() if make else t for t, make in zip((x, dropped), ctx.remakes))
        mixes, weights, routers, downs, ups = _fifths(saved)
        needs, count, dtype = ctx.needs_input_grad, len(weights), grads[0].dtype
        biases_grad = [g.sum(0) if needs[3 + count + i] else None for i, g in enumerate(grads)]
        width = sum(form.experts for form in ctx.forms)
        # One buffer, gradients of logits before those of z: both go back through one product.
        both = torch.empty(width + z.shape[0], z.shape[1], dtype=dtype, device=z.device)
        dlogits, dz = both[:width], both[width:]
        ups_grad = []
        logit_parts = dlogits.split([form.experts for form in ctx.forms])
        for *mine, g, up, form, trains in zip(
            _split(z, downs), mixes, logit_parts, _split(dz, downs), grads, ups, ctx.forms, needs[-count:]
        ):
            ups_grad.append((_mixed(mine[0], mine[1], form) @ g).to(up.dtype) if trains else None)
            _unmix(*mine, _turned(g @ up.to(dtype).t()), form)
        stacked = [_stacked(routers), _stacked(downs)]
        reads = (x, x if dropped is None else dropped)
        are_frozen = not any(needs[-2 * count : -count])
        routers_grad, downs_grad = _factors(dlogits, None if are_frozen else dz, both, reads)
        dx = None
        if needs[0]:
            dx = grads[0] @ weights[0].to(dtype)
            for g, w in zip(grads[1:], weights[1:]):
                dx.addmm_(g, w.to(dtype))
            if dropped is None:
                dx.addmm_(both.t(), torch.cat([t.to(dtype) for t in stacked if t is not None]))
            elif width:
                dx.addmm_(dlogits.t(), stacked[0].to(dtype))
        dropped_grad = dz.t() @ stacked[1].to(dtype) if needs[1] else None
        return (
            *(dx, dropped_grad, None, *[None] * count, *biases_grad),
            *_like(routers_grad, routers),
            *_like(downs_grad, downs),
            *ups_grad,
        )


def _products(x: Tensor, d: Tensor, router: Tensor | None, down: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (experts, N), in float32 at least, and z (ranks, N)."""
    if router is None:
        return x.new_empty(0, len(x)), _turned(d @ down.to(d.dtype).t())
    if d is x and x.dtype == wide(x.dtype):
        both = _turned(x @ torch.cat([router, down]).to(x.dtype).t())
        return both[: len(router)], both[len(router) :]
    return _turned(router_logits(x, router)), _turned(d @ down.to(d.dtype).t())


def _turned(t: Tensor) -> Tensor:
    """Return the transpose, laid out anew: (N, C) -> (C, N)."""
    return t.t().contiguous()


def _mixed(z: Tensor, mix: Tensor, form: _Form) -> Tensor:
    """Return z times scale and, with a router, weights. z: (R or N R, N) -> (N R, N), mix: (experts, N)."""
    if not form.experts:
        return z * form.scale
    apart = z.unflatten(0, (-1, form.rank))
    return (apart * (mix * form.scale).unsqueeze(1)).flatten(0, 1).to(z.dtype)


def _unmix(z: Tensor, mix: Tensor, dlogits: Tensor, dz: Tensor, g: Tensor, form: _Form) -> None:
    """Write the gradients of logits and z into their buffers. g: that of the weighted z."""
    if not form.experts:
        torch.mul(g, form.scale, out=dz)
        return
    g, apart, mix_s = g.unflatten(0, (-1, form.rank)), z.unflatten(0, (-1, form.rank)), mix * form.scale
    dmix = (g * apart).sum(1) * mix_s  # (experts, N), already times the weight
    dlogits.copy_(dmix - mix * dmix.sum(0))
    back = g * mix_s.unsqueeze(1)
    dz.copy_(back.sum(0) if len(apart) != form.experts else back.flatten(0, 1))


def _factors(
    dlogits: Tensor, dz: Tensor | None, both: Tensor, reads: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the stacked routers and A's; one product where both read one tensor.

    No A trains where dz is None.
    """
    if dz is None:
        return dlogits @ reads[0], None
    if reads[0] is reads[1]:
        grad = both @ reads[0]
        return grad[: len(dlogits)], grad[len(dlogits) :]
    return dlogits @ reads[0], dz @ reads[1]


def _like(stacked: Tensor | None, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Cut a stack of gradients into those of the tensors, in their types."""
    if stacked is None:
        return [None] * len(tensors)
    parts = iter(stacked.split([len(t) for t in tensors if t is not None]))
    return [None if t is None else next(parts).to(t.dtype) for t in tensors]


def _split(z: Tensor, downs: Sequence[Tensor]) -> Sequence[Tensor]:
    return z.split([len(a) for a in downs])


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    found = [t for t in tensors if t is not None]
    return torch.cat(found) if len(found) > 1 else found[0] if found else None


def _fifths(tensors: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    count = len(tensors) // 5
    return tuple(tensors[k * count : (k + 1) * count] for k in range(5))


def fused_experts_forward(x: Tensor, parts: Sequence[AdaptedLinear]) -> list[Tensor]:
    """Return base plus experts of linears with one input. x: (..., D_in) -> one (..., D_out) each.

    Under autocast the products run in its type, but those of routers in float32.
    """
    if any(part.adapter.draws_dropout for part in parts) and len(parts) > 1:
        return [output for part in parts for output in fused_experts_forward(x, [part])]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    flat = x.reshape(-1, x.shape[-1])
    dropped = F.dropout(flat, parts[0].adapter.dropout) if parts[0].adapter.draws_dropout else None
    remake = flat_remake_of(x, parts[0].epsilons)
    remake_dropped = None if dropped is None else flat_remake_of(dropped, parts[0].epsilons)
    with torch.autocast(x.device.type, enabled=False):
        mixtures = [part.adapter.mixture() for part in parts]
        forms = tuple(
            _Form(
                0 if mixture.router is None else len(mixture.router),
                mixture.rank,
                part.strength * part.adapter.scale,
                part.adapter.observer,
            )
            for part, mixture in zip(parts, mixtures)
        )
        outputs = _FusedExperts.apply(
            flat,
            dropped,
            (forms, (remake, remake_dropped)),
            *(part.weight for part in parts),
            *(part.bias for part in parts),
            *(mixture.router for mixture in mixtures),
            *(mixture.A for mixture in mixtures),
            *(mixture.B for mixture in mixtures),
        )
    return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]
