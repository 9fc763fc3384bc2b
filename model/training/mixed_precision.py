"""Store frozen linears in the type that autocast computes in, for as long as a run trains under it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_COMPUTED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@contextmanager
def frozen_stored_for(network: nn.Module, precision: str) -> Iterator[int]:
    """Swap every frozen linear's tensors for copies in autocast's type and put them back at the end.

    Autocast keeps the casts of trained weights alone and casts each frozen one anew at every use; the values
    that are multiplied are the same either way. A tied table is not touched: the linear gets its own copy.
    Only code under autocast may run the network meanwhile.

    Args:
        network: the host; linears that train stay as they are.
        precision: Lightning's word; others than the mixed ones change nothing.

    Yields:
        how many linears were swapped.
    """
    dtype = _COMPUTED.get(precision)
    held = []
    if dtype is not None:
        for module in network.modules():
            own = module._parameters
            if type(module) is nn.Linear and not any(p is not None and p.requires_grad for p in own.values()):
                held.append((module, dict(own)))
    for module, own in held:
        for name, parameter in own.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    try:
        yield len(held)
    finally:
        for module, own in held:
            module._parameters.update(own)
