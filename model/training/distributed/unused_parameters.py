"""Include parameters that a step does not use in DDP's gradient exchange, without computing with them.

DDP waits for a gradient of every parameter that requires one. Modules that are switched off have none. An
autograd node passes the loss through unchanged and gives each of these parameters a gradient of zeros; before
the update the learner sets it to None again, since an optimiser moves (decay, momentum) whatever has a
gradient, even a zero one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _ZeroGradients(torch.autograd.Function):
    """(loss, parameters) -> loss; the parameters' gradients are zeros."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        """loss: scalar -> the same scalar."""
        ctx.shapes = [(p.shape, p.dtype, p.device) for p in parameters]
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """grad: scalar -> the same scalar, and zeros of each parameter's shape."""
        zeros = (torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.shapes)
        return grad, *zeros


def include_unused(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the loss, connected to parameters that were not used for it; their gradients will be zeros.

    Args:
        loss: scalar.
        parameters: of any shapes; without one the very loss is returned.
    """
    return _ZeroGradients.apply(loss, *parameters) if parameters else loss
