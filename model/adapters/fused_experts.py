"""Base and experts of all linears that read one input, as one autograd node.

For linears i that read x (B T, D_in), with d = x or, for a single linear, the dropped x:

    w_i = softmax(x W_r_i^T)                             (B T, N_i) z_i = s_i d A_i^T
    (B T, R_i), or (B T, N_i R_i) where each expert has an A y_i = x W_i^T + b_i + weigh_ranks(z_i, w_i) B_i
    (B T, D_out_i), B_i (N_i R_i, D_out_i)

Source: the formula of `model.adapters.experts`; the layout of sums follows `model.adapters.fused_lora`.
Differs: routers and A's of all linears are one product where they read the same tensor in the same type; the
delta of all experts is added to the base output in place. Saved are z and the weights, and the input where
nothing else can compute it again; the weighted z is computed again for the gradient of B. In memory, logits,
weights and z are transposed, (.., B T), so that weighing reads rows whatever the number of experts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.adapters.adapter import AdaptedLinear
from model.adapters.block_diagonal import head_blocks, linear_plus_delta
from model.adapters.experts import Mixture, MixtureAdapter, Observer, router_dtype, router_logits
from model.adapters.fused import fused
from model.adapters.rematerialisation import Remake, flat_remake_of


class _Form(NamedTuple):
    """What one linear's experts are besides their tensors.

    Args:
        experts: N; 0 without a router.
        rank: R of each.
        scale: strength alpha / R.
        observer: is called with the weights.
    """

    experts: int
    rank: int
    scale: float
    observer: Observer | None


_Known = tuple[tuple[_Form, ...], tuple[Remake | None, Remake | None]]
"""The form of each linear, and how to compute x and the dropped x again; None: they are saved."""


class _FusedExperts(torch.autograd.Function):
    """The formulas of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, known: _Known, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return every y_i. x, dropped: (B T, D_in); tensors: every W, b, router (or None), A and B."""
        ctx.forms, ctx.remakes = known
        weights, biases, routers, downs, ups = _fifths(tensors)
        d = x if dropped is None else dropped
        logits, z = _products(x, d, _stacked_routers(routers), _stacked(downs))
        mixes = [part.softmax(0) for part in logits.split([form.experts for form in ctx.forms])]
        outputs = []
        for w, b, z_i, mix, up, form in zip(weights, biases, _split(z, downs), mixes, ups, ctx.forms):
            if form.observer is not None and form.experts:
                form.observer(mix.t())
            whole = head_blocks([(len(up), 1.0)], up.shape[1])
            outputs.append(linear_plus_delta(x, w, b, _mixed(z_i, mix, form).t(), up, whole))
        kept = [None if make else t for t, make in zip((x, dropped), ctx.remakes)]
        ctx.save_for_backward(*kept, z, *mixes, *weights, *routers, *downs, *ups)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """grads: (B T, D_out) of each linear -> gradients of x, dropped, biases, routers, A and B."""
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
        linears = zip(_split(z, downs), mixes, logit_parts, _split(dz, downs), grads, ups, ctx.forms)
        for trains, (z_i, mix, dlogits_i, dz_i, g, up, form) in zip(needs[-count:], linears):
            ups_grad.append((_mixed(z_i, mix, form) @ g).to(up.dtype) if trains else None)
            _unmix(z_i, mix, dlogits_i, dz_i, _turned(g @ up.to(dtype).t()), form)
        router, down = _stacked_routers(routers), _stacked(downs).to(dtype)
        reads = (x, x if dropped is None else dropped)
        are_frozen = not any(needs[-2 * count : -count])
        routers_grad, downs_grad = _factors(dlogits, None if are_frozen else dz, both, reads)
        dx = None
        if needs[0]:
            dx = grads[0] @ weights[0].to(dtype)
            for g, w in zip(grads[1:], weights[1:]):
                dx.addmm_(g, w.to(dtype))
            if dropped is None:
                dx.addmm_(both.t(), down if router is None else torch.cat([router.to(dtype), down]))
            elif router is not None:
                dx.addmm_(dlogits.t(), router.to(dtype))
        dropped_grad = dz.t() @ down if needs[1] else None
        return (
            *(dx, dropped_grad, None, *[None] * count, *biases_grad),
            *_like(routers_grad, routers),
            *_like(downs_grad, downs),
            *ups_grad,
        )


def _products(x: Tensor, d: Tensor, router: Tensor | None, down: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (experts, B T), in float32 at least, and z (ranks, B T)."""
    if router is None:
        return x.new_empty(0, len(x)), _turned(d @ down.to(d.dtype).t())
    if d is x and x.dtype == router_dtype(x.dtype):
        both = _turned(x @ torch.cat([router, down]).to(x.dtype).t())
        return both[: len(router)], both[len(router) :]
    return _turned(router_logits(x, router)), _turned(d @ down.to(d.dtype).t())


def _turned(t: Tensor) -> Tensor:
    """Return the transpose, copied into rows: (B T, C) -> (C, B T)."""
    return t.t().contiguous()


def _mixed(z: Tensor, mix: Tensor, form: _Form) -> Tensor:
    """Return z times scale and, with a router, times the weights.

    Args:
        z: (R or N R, B T).
        mix: the weights, (N, B T).
        form: N, R and scale.

    Returns:
        (N R, B T).
    """
    if not form.experts:
        return z * form.scale
    apart = z.unflatten(0, (-1, form.rank))
    return (apart * (mix * form.scale).unsqueeze(1)).flatten(0, 1).to(z.dtype)


def _unmix(z: Tensor, mix: Tensor, dlogits: Tensor, dz: Tensor, g: Tensor, form: _Form) -> None:
    """Write the gradients of logits and z into their buffers.

    Args:
        z: (R or N R, B T).
        mix: the weights, (N, B T).
        dlogits: (N, B T), overwritten.
        dz: of z's shape, overwritten.
        g: (N R, B T), the gradient of the weighted z.
        form: N, R and scale.
    """
    if not form.experts:
        torch.mul(g, form.scale, out=dz)
        return
    g, apart, mix_s = g.unflatten(0, (-1, form.rank)), z.unflatten(0, (-1, form.rank)), mix * form.scale
    dmix = (g * apart).sum(1) * mix_s  # (N, B T), already times the weight
    dlogits.copy_(dmix - mix * dmix.sum(0))
    back = g * mix_s.unsqueeze(1)
    dz.copy_(back.sum(0) if len(apart) != form.experts else back.flatten(0, 1))


def _factors(
    dlogits: Tensor, dz: Tensor | None, both: Tensor, reads: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the stacked routers and A's; one product where both read one tensor.

    Args:
        dlogits: (sum of N, B T).
        dz: (ranks, B T); None where no A trains.
        both: both of them, one below the other.
        reads: (B T, D_in), what routers read and what A's read.
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
    """Return each linear's rows of z: (ranks, B T) -> (R or N R, B T) each."""
    return z.split([len(a) for a in downs])


def _stacked_routers(routers: Sequence[Tensor | None]) -> Tensor | None:
    """Return the routers that there are, one below the other: (sum of N, D_in); None without one."""
    found = [router for router in routers if router is not None]
    return _stacked(found) if found else None


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors one below the other, a single one without a copy."""
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]


def _fifths(tensors: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """Return the weights, biases, routers, A's and B's of a node's tensors."""
    count = len(tensors) // 5
    return tuple(tensors[k * count : (k + 1) * count] for k in range(5))


def _form(linear: AdaptedLinear[MixtureAdapter], mixture: Mixture) -> _Form:
    experts = 0 if mixture.router is None else len(mixture.router)
    scale = linear.strength * linear.adapter.scale
    return _Form(experts, mixture.rank, scale, linear.adapter.observer)


@fused
def fused_experts_forward(x: Tensor, linears: Sequence[AdaptedLinear[MixtureAdapter]]) -> Sequence[Tensor]:
    """Return base plus experts of linears with one input; products of routers run in float32.

    Args:
        x: (..., D_in).
        linears: all read x; several only without dropout.

    Returns:
        One (B T, D_out) for each linear.
    """
    flat, first = x.reshape(-1, x.shape[-1]), linears[0]
    dropped = F.dropout(flat, first.adapter.dropout) if first.adapter.draws_dropout else None
    remakes = (
        flat_remake_of(x, first.epsilons),
        None if dropped is None else flat_remake_of(dropped, first.epsilons),
    )
    mixtures = [linear.adapter.mixture() for linear in linears]
    forms = tuple(_form(linear, mixture) for linear, mixture in zip(linears, mixtures))
    return _FusedExperts.apply(
        flat,
        dropped,
        (forms, remakes),
        *(linear.weight for linear in linears),
        *(linear.bias for linear in linears),
        *(mixture.router for mixture in mixtures),
        *(mixture.A for mixture in mixtures),
        *(mixture.B for mixture in mixtures),
    )
