"""Let parameters that a step does not use take part in DDP's exchange without any arithmetic on them.

DDP waits for a gradient of every parameter that trains. Modules that are switched off have none. Here each of
their parameters gets a gradient of zeros from a node that hands the loss on unchanged; before the update the
zeros are taken away again, since an optimiser moves (decay, momentum) what has a gradient, be it zero.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Silent(torch.autograd.Function):
    """(loss, parameters) -> loss; zeros as the parameters' gradients."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        """Hand the loss on. loss: scalar."""
        ctx.shapes = [(p.shape, p.dtype, p.device) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """grad: scalar -> itself, and zeros."""
        zeros = (torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.shapes)
        return grad, *zeros


def silent(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """Return the loss, tied to parameters that did not take part in it; their gradients will be zeros."""
    return _Silent.apply(loss, *parameters) if parameters else loss
