"""Gradient checkpointing in evaluation mode, where transformers' layers leave it out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(network: nn.Module) -> Iterator[int]:
    """Let a forward pass in evaluation mode keep no more than one in training mode would.

    Layers that recompute their activations do so only while they train. Here a layer says so for as long as
    it asks itself, and no longer: what runs in it, now and in the backward pass, is in evaluation mode.
    Caches of keys are left out as in training. The backward pass may follow outside.

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
    held = [(layer, layer.training, dict(layer.__dict__)) for layer in layers]
    for layer in layers:
        inner = layer.__dict__.get("forward") or partial(type(layer).forward, layer)
        layer.__dict__["forward"] = partial(_awake, layer, inner)
        layer.__dict__["_gradient_checkpointing_func"] = partial(_asleep, layer)
    try:
        yield len(layers)
    finally:
        for layer, training, before in held:
            layer.training = training
            for name in ("forward", "_gradient_checkpointing_func"):
                if name in before:
                    layer.__dict__[name] = before[name]
                else:
                    del layer.__dict__[name]


def _awake(layer: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a layer that takes itself for training until it decides to recompute."""
    layer.training = True
    try:
        return forward(*args, **kwargs)
    finally:
        layer.training = False


def _asleep(layer: nn.Module, run: Callable, *args: Any) -> Any:
    """Run a layer's code in evaluation mode, keeping its inputs alone."""
    layer.training = False
    return checkpoint(run, *args, use_reentrant=False)
