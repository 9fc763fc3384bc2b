"""Gradients of adapters' factors for scoring: one backward pass per batch; no `.grad` is changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.injection.attachment import Attachment
from model.search.eval_checkpointing import checkpointing_in_eval
from model.search.heuristic import Probe
from model.site import SiteKey


class FactorGradient(NamedTuple):
    """A trained tensor of a module and the loss's gradient with respect to it, of the same shape."""

    weight: Tensor
    gradient: Tensor


FactorGradients = dict[SiteKey, list[FactorGradient]]


def trained_factors(attachments: Mapping[SiteKey, Attachment]) -> dict[SiteKey, list[nn.Parameter]]:
    """Return the trained tensors of each module."""
    return {
        key: [factor for factor in attachment.adapter.parameters() if factor.requires_grad]
        for key, attachment in attachments.items()
    }


def factor_gradients(value: Tensor, factors: Mapping[SiteKey, Sequence[Tensor]]) -> FactorGradients:
    """Return the gradients of a scalar with respect to every factor; zero where it does not depend on one.

    `torch.autograd.grad` on the bare network runs no hooks of DDP and fills no `.grad`.

    Args:
        value: scalar.
        factors: module -> its tensors, of any shapes.
    """
    flat = [factor for group in factors.values() for factor in group]
    found = iter(torch.autograd.grad(value, flat, materialize_grads=True, allow_unused=True))
    return {key: [FactorGradient(factor, next(found)) for factor in group] for key, group in factors.items()}


def batch_gradients(probe: Probe) -> Iterator[FactorGradients]:
    """Yield the gradients of each batch's mean loss, in order, of this process's batches only."""
    factors = trained_factors(probe.attachments)
    for batch in probe.progress(probe.batches, "scoring"):
        with probe.precision(), checkpointing_in_eval(probe.network):
            loss = probe.objective.loss(probe.network, batch)
        yield factor_gradients(loss, factors)


def summed_gradients(probe: Probe) -> FactorGradients:
    """Return the gradients summed in float64 over the batches of all processes."""
    factors = trained_factors(probe.attachments)
    flat = [factor for group in factors.values() for factor in group]
    sums = torch.zeros(sum(f.numel() for f in flat), dtype=torch.float64, device=probe.device)
    parts = [part.view_as(f) for part, f in zip(sums.split([f.numel() for f in flat]), flat)]
    for one in batch_gradients(probe):
        _add(parts, one)
        del one  # otherwise it would still be in memory with the next batch's activations
    whole = probe.reduce(sums).split([f.numel() for f in flat])
    found = iter(part.view_as(f) for part, f in zip(whole, flat))
    return {
        key: [FactorGradient(factor.detach(), next(found)) for factor in group]
        for key, group in factors.items()
    }


def _add(sums: Sequence[Tensor], found: FactorGradients) -> None:
    for part, one in zip(sums, (one for group in found.values() for one in group)):
        part.add_(one.gradient)
