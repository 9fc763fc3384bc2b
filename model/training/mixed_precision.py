"""Store frozen linears in autocast's type while a run trains under it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@contextmanager
def frozen_weights_in_compute_dtype(network: nn.Module, precision: str) -> Iterator[int]:
    """Replace every frozen linear's tensors by copies in autocast's type, and restore them at the end.

    Autocast caches the casts of trained weights only and casts each frozen one again at every use; the values
    that are multiplied are the same either way. A tied embedding is not changed: the linear gets its own
    copy. In the body the network may only run under autocast.

    Args:
        network: the host; linears that train stay as they are.
        precision: Lightning's name; only the mixed ones change anything.

    Yields:
        how many linears were replaced.
    """
    dtype = _AUTOCAST_DTYPES.get(precision)
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
