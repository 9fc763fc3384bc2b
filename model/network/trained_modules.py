"""The parts of a backbone that are trained with an adapter: heads, and modules that the base lacks."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.runtime.seeds import derive


def train_only(network: nn.Module, modules: Iterable[str]) -> None:
    """Make the named modules trainable, in float32 whatever the base's number format, and freeze the rest."""
    network.requires_grad_(False)
    for name in modules:
        module = network.get_submodule(name)
        unfreeze(module, next(module.parameters()).dtype)


def unfreeze(module: nn.Module, base_dtype: torch.dtype, *, casts_output: bool = False) -> None:
    """Make a module trainable in float32, within a base of another number format.

    Args:
        module: reads hidden states in the base's number format.
        base_dtype: that number format.
        casts_output: whether the module's output returns to it, as frozen modules read it.
    """
    module.float().requires_grad_(True)
    if base_dtype != torch.float32:
        module.register_forward_pre_hook(_cast_inputs)
        if casts_output:
            module.register_forward_hook(partial(_cast_output, base_dtype=base_dtype))


def _cast_output(
    module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, base_dtype: torch.dtype
) -> Tensor:
    """Cast an output to the base's number format, unless the whole network was cast to another one."""
    return output.to(base_dtype) if next(module.parameters()).dtype == torch.float32 else output


def _cast_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cast hidden states of the frozen part to the number format of a trained module."""
    dtype = next(module.parameters()).dtype
    return tuple(value.to(dtype) if value.is_floating_point() else value for value in inputs)


def initialise(network: PreTrainedModel, names: Iterable[str], seed: int) -> None:
    """Initialise the parameters that the base lacks: matrices normal, norm weights one, biases zero.

    Differs: transformers draws from the global random state; here only the run's seed counts.

    Args:
        network: its configuration gives the standard deviation of matrices, or else it is 0.02.
        names: the parameters, in the order in which they are drawn.
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


def restore_precision(network: nn.Module, modules: Sequence[str], files: Iterable[Path]) -> None:
    """Read the float32 values of trained modules again, which loading in bfloat16 had rounded.

    Args:
        network: after `train_only`.
        modules: dotted paths of the trained modules.
        files: the base's weights; pickle-based files are skipped, so their heads stay rounded.
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
