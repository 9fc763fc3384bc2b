"""The random start of a factor: Kaiming uniform, drawn from the caller's generator.

Source: He et al. 2015, arXiv 1502.01852, equation 15 with slope a: Var[w] = 2 / ((1 + a^2) fan_in). A uniform
distribution has this variance for the bound sqrt(6 / ((1 + a^2) fan_in)). LoRA's published code, and PEFT's,
use a = sqrt 5, which gives sqrt(1 / fan_in); AFLoRA's and VeRA's use a = 0.
"""

import math

import torch
from torch import Tensor


def kaiming_uniform_(tensor: Tensor, fan_in: int, source: torch.Generator, *, a_squared: int = 5) -> None:
    """Fill a tensor in place from U(-bound, bound), bound = sqrt(6 / ((1 + a^2) fan_in)).

    The numbers are drawn in float32 on the CPU, whatever the tensor's type and device, so that a seed gives
    the same start everywhere; one draw for each element, row by row.

    Args:
        tensor: any shape; may require a gradient.
        fan_in: inputs that each output sums over, at least 1.
        source: the generator that is drawn from.
        a_squared: a^2, given squared so that the bound is exact: 5 as for LoRA, 0 as for AFLoRA and VeRA.
    """
    bound = math.sqrt(6.0 / ((1 + a_squared) * fan_in))
    with torch.no_grad():
        tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=source))
