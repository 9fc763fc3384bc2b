"""Gradient checkpointing in evaluation mode, where transformers' layers omit it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def checkpointing_in_eval(network: nn.Module) -> Iterator[int]:
    """Checkpoint activations in evaluation mode too, so that a forward pass keeps as little as in training.

    transformers' layers recompute their activations only if `layer.training` is set. Here it is set while a
    layer's own `__call__` tests it and reset before its code runs, so that all computation, in the forward
    and the backward pass, is in evaluation mode. Key-value caches are omitted as in training. The backward
    pass may follow outside the context.

    Args:
        network: without `gradient_checkpointing_enable` nothing changes.

    Yields:
        how many layers recompute.
    """
    layers = [
        module
        for module in network.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
    saved = [(layer, layer.training, dict(layer.__dict__)) for layer in layers]
    for layer in layers:
        inner = layer.__dict__.get("forward") or partial(type(layer).forward, layer)
        layer.__dict__["forward"] = partial(_forward_as_training, layer, inner)
        layer.__dict__["_gradient_checkpointing_func"] = partial(_recompute_in_eval, layer)
    try:
        yield len(layers)
    finally:
        for layer, training, before in saved:
            layer.training = training
            for name in ("forward", "_gradient_checkpointing_func"):
                if name in before:
                    layer.__dict__[name] = before[name]
                else:
                    del layer.__dict__[name]


def _forward_as_training(layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a layer in training mode; `_recompute_in_eval` ends that mode before the layer's code runs."""
    layer.training = True
    try:
        return forward(*args, **kwargs)
    finally:
        layer.training = False


def _recompute_in_eval(layer: nn.Module, run: Callable[..., Any], *args: Any) -> Any:
    """Run a layer's code in evaluation mode and save only its inputs for the backward pass."""
    layer.training = False
    return checkpoint(run, *args, use_reentrant=False)
