"""Modules trained in full besides adapters, and exported with them: PEFT's `modules_to_save`.

Source: huggingface/peft, `ModulesToSaveWrapper`: a copy of the module is trained and replaces it.
Differs: a name matches whole components of a module's path (`norm` is not `input_layernorm`). A module means
the modules below it that have tensors. Named modules that share a tensor keep sharing it, while PEFT
trains a copy for each; a tensor shared with a module that is not named is copied, as in PEFT.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.runtime.faults import InputFault, suggestion
from model.network.trained_modules import unfreeze

Place = tuple[str, str]
"""A module's dotted path and the name of one of its own tensors."""


def matching_modules(
    network: nn.Module, names: Sequence[str], adapted: Collection[str], where: str
) -> tuple[str, ...]:
    """Return the paths of the modules with tensors that the names match, in the network's order.

    Args:
        network: the host.
        names: last components of modules' paths, one or more.
        adapted: paths of linears that have an adapter.
        where: the plan's file, for messages.

    Raises:
        InputFault: for a name that matches no module, or one that has an adapter.
    """
    holders = [path for path, module in network.named_modules(remove_duplicate=False) if _own(module)]
    faults: list[str] = []
    found: set[str] = set()
    for name in names:
        mine = [path for path in holders if _fits(name, path)]
        both = [path for path in mine if path in adapted]
        if not mine:
            words = dict.fromkeys(word for path in holders for word in path.split("."))
            faults.append(f"no module '{name}' that has weights{suggestion(name, words)}")
        elif both:
            faults.append(
                f"'{name}': {both[0]} has an adapter; a module has an adapter or is trained in full, not both"
            )
        found.update(mine)
    if faults:
        raise InputFault(*(f"{where}: modules_to_save: {fault}" for fault in faults))
    return tuple(path for path in holders if path in found)


def _own(module: nn.Module) -> list[str]:
    return [name for name, parameter in module._parameters.items() if parameter is not None]


def _fits(name: str, path: str) -> bool:
    """Return whether the path, or that of a parent module, ends with the name's components."""
    return f".{name}." in f".{path}."


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Return whether a dotted path is one of the modules or lies below one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def train_in_full(
    network: PreTrainedModel, modules: Sequence[str], values: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Make modules trainable in float32 and return a note for each tensor that they no longer share.

    Args:
        network: the host; where tied tensors are separated, its configuration ties them no longer.
        modules: paths from `matching_modules`.
        values: full name -> tensor that will be loaded; tensors with different values are separated.
    """
    notes = _untie(network, modules, values)
    dtypes = {path: next(network.get_submodule(path).parameters()).dtype for path in modules}
    for path, dtype in dtypes.items():
        module = network.get_submodule(path)
        # Logits may stay in float32; hidden states that frozen modules read may not.
        unfreeze(module, dtype, casts_output=module is not network.get_output_embeddings())
    return notes


def _untie(network: PreTrainedModel, modules: Sequence[str], values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Give shared tensors that may not stay shared a copy for each value that they may have."""
    shared: dict[nn.Parameter, list[Place]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        for name in _own(module):
            shared.setdefault(module.get_parameter(name), []).append((path, name))
    notes = []
    for parameter, places in shared.items():
        groups = _groups(places, set(modules), values)
        for group in groups[1:]:
            copy = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            for path, name in group:
                network.get_submodule(path)._parameters[name] = copy
        if len(groups) > 1:
            network.config.tie_word_embeddings = False
            apart = " and ".join(", ".join(path for path, _ in group) for group in groups)
            notes.append(f"modules_to_save: {apart} shared one tensor; each has its own from now on")
    return tuple(notes)


def _groups(
    places: Sequence[Place], named: Collection[str], values: Mapping[str, Tensor]
) -> list[list[Place]]:
    """Group the places that keep sharing a tensor; those that are not named come first."""
    still = [place for place in places if place[0] not in named]
    groups: list[tuple[Tensor | None, list[Place]]] = []
    for place in (place for place in places if place[0] in named):
        value = values.get(".".join(place))
        for other, group in groups:
            if value is other or (value is not None and other is not None and torch.equal(value, other)):
                group.append(place)
                break
        else:
            groups.append((value, [place]))
    return ([still] if still else []) + [group for _, group in groups]
