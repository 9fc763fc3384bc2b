"""Gradient checkpointing of the host for a while: activations are computed again in the backward pass."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def checkpointed_activations(network: PreTrainedModel, *, wanted: bool) -> Iterator[None]:
    """Checkpoint the network's layers within the block.

    Args:
        network: the host.
        wanted: the value of `--gradient-checkpointing`; without it nothing changes.
    """
    if wanted:
        _switch(network, on=True)
    yield
    if wanted:
        _switch(network, on=False)


def _switch(network: PreTrainedModel, *, on: bool) -> None:
    # Releases of transformers 5 differ in the methods' names; later ones warn of the earlier names.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        if on:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            network.gradient_checkpointing_disable()
