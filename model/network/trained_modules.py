"""The parts of a backbone that train with an adapter: heads, and what the base lacked."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from configs.runtime.seeds import derive


def train_only(network: nn.Module, modules: Iterable[str]) -> None:
    """Let only the named modules require gradients, in float32 whatever the base is stored in."""
    network.requires_grad_(False)
    for name in modules:
        module = network.get_submodule(name)
        release(module, next(module.parameters()).dtype)


def release(module: nn.Module, stored: torch.dtype, *, keeps: bool = False) -> None:
    """Let a module train in float32 amid a base that is stored in another number format.

    Args:
        module: reads hidden states in the base's format.
        stored: that format.
        keeps: give outputs in it too, for what frozen modules read.
    """
    module.float().requires_grad_(True)
    if stored != torch.float32:
        module.register_forward_pre_hook(_match_dtype)
        if keeps:
            module.register_forward_hook(partial(_give_back, stored=stored))


def _give_back(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, stored: torch.dtype) -> Tensor:
    """Bring outputs back to the base's format, unless the whole network was put into another one."""
    return output.to(stored) if next(module.parameters()).dtype == torch.float32 else output


def _match_dtype(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring hidden states of the frozen part to the number format of a trained module."""
    dtype = next(module.parameters()).dtype
    return tuple(value.to(dtype) if value.is_floating_point() else value for value in inputs)


def initialise(network: nn.Module, names: Iterable[str], seed: int) -> None:
    """Fill the parameters that the base lacks: matrices normal, norm weights one, biases zero.

    Differs: the hosts draw from the global random state; here the run's seed alone decides.

    Args:
        network: its configuration gives the standard deviation.
        names: the parameters, in the order of drawing.
        seed: the run's seed.
    """
    config = network.config
    spread = getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or 0.02
    generator = torch.Generator().manual_seed(derive(seed, "head"))
    with torch.no_grad():
        for name in names:
            parameter = network.get_parameter(name)
            if parameter.dim() > 1:
                parameter.normal_(0.0, spread, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def reread(network: nn.Module, modules: Sequence[str], files: Iterable[Path]) -> None:
    """Give trained modules their stored values again, which a base kept in bfloat16 had rounded.

    Args:
        network: after `train_only`.
        modules: the trained modules.
        files: the base's weights; pickle-based ones are passed over, their heads stay rounded.
    """
    targets = {
        f"{name}.{inner}": parameter
        for name in modules
        for inner, parameter in network.get_submodule(name).named_parameters()
    }
    for path in files:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, "pt") as tensors, torch.no_grad():
            for name in set(targets) & set(tensors.keys()):
                if targets[name].shape == tensors.get_tensor(name).shape:
                    targets[name].copy_(tensors.get_tensor(name))
