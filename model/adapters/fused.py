"""What every fused computation does around its autograd node: one node a dropout mask, precision, shapes."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from model.adapters.adapter import AdaptedLinear, FusedForward


class DrawsDropout(Protocol):
    """An adapter that reports whether it draws a dropout mask in this pass."""

    @property
    def draws_dropout(self) -> bool:
        """Whether the input is dropped in this pass."""
        ...


A = TypeVar("A", bound=DrawsDropout)


def fused(compute: Callable[[Tensor, Sequence[AdaptedLinear[A]]], Sequence[Tensor]]) -> FusedForward[A]:
    """Make the fused forward of a kind out of its computation for one node.

    With dropout every linear draws its own mask, so each is a node of its own. Under autocast the products
    run in its type, as those of the stock layers do, while factors stay as stored; the computation is called
    without autocast, with x cast already.

    Args:
        compute: (x (..., D_in), the linears that read x) -> (B T, D_out) for each linear; with dropout it is
            given one linear.

    Returns:
        (x (..., D_in), the linears that read x) -> (..., D_out) for each linear.
    """

    @wraps(compute)
    def forward(x: Tensor, linears: Sequence[AdaptedLinear[A]]) -> list[Tensor]:
        """Return one (..., D_out) for each linear of x (..., D_in)."""
        if len(linears) > 1 and any(linear.adapter.draws_dropout for linear in linears):
            return [output for linear in linears for output in forward(x, [linear])]
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            outputs = compute(x, linears)
        return [output.view(*x.shape[:-1], output.shape[-1]) for output in outputs]

    return forward
