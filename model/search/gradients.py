"""Gradients of adapter tensors for scoring: ordinary ones, one backward pass a batch, no `.grad` touched."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.injection.attachment import Attachment
from model.search.eval_checkpointing import recomputed
from model.search.heuristic import Probe
from model.site import SiteKey


class Slope(NamedTuple):
    """A trained tensor of a module and the gradient of the loss there, of the same shape."""

    weight: Tensor
    gradient: Tensor


Slopes = dict[SiteKey, list[Slope]]


def trained_factors(attachments: Mapping[SiteKey, Attachment]) -> dict[SiteKey, list[nn.Parameter]]:
    """Return the tensors of each module that train."""
    return {
        key: [factor for factor in attachment.adapter.parameters() if factor.requires_grad]
        for key, attachment in attachments.items()
    }


def slopes(value: Tensor, factors: Mapping[SiteKey, Sequence[Tensor]]) -> Slopes:
    """Return the gradients of a scalar at every factor; where it does not depend on one they are zero.

    `torch.autograd.grad` on the bare network fires no hooks of DDP and fills no `.grad`.
    """
    flat = [factor for group in factors.values() for factor in group]
    found = iter(torch.autograd.grad(value, flat, materialize_grads=True, allow_unused=True))
    return {key: [Slope(factor, next(found)) for factor in group] for key, group in factors.items()}


def batch_slopes(probe: Probe) -> Iterator[Slopes]:
    """Yield the gradients of each batch's mean loss, in order; this process's share alone."""
    factors = trained_factors(probe.attachments)
    for batch in probe.watch(probe.batches, "scoring"):
        with probe.precision(), recomputed(probe.network):
            loss = probe.objective.loss(probe.network, batch)
        yield slopes(loss, factors)


def summed_slopes(probe: Probe) -> Slopes:
    """Return the gradients summed in float64 over the batches of all processes."""
    factors = trained_factors(probe.attachments)
    flat = [factor for group in factors.values() for factor in group]
    sums = torch.zeros(sum(f.numel() for f in flat), dtype=torch.float64, device=probe.device)
    parts = [part.view_as(f) for part, f in zip(sums.split([f.numel() for f in flat]), flat)]
    for one in batch_slopes(probe):
        _add(parts, one)
        del one  # or it would be held beside the next batch's activations
    whole = probe.reduce(sums).split([f.numel() for f in flat])
    found = iter(part.view_as(f) for part, f in zip(whole, flat))
    return {key: [Slope(factor.detach(), next(found)) for factor in group] for key, group in factors.items()}


def _add(sums: Sequence[Tensor], found: Slopes) -> None:
    for part, slope in zip(sums, (slope for group in found.values() for slope in group)):
        part.add_(slope.gradient)
