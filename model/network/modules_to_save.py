"""Modules that train whole beside adapters and travel with them: PEFT's `modules_to_save`.

Source: huggingface/peft, `ModulesToSaveWrapper`: a copy of the module trains and takes its place.
Differs: a name fits whole components of a module's path (`norm` is not `input_layernorm`). A module is taken
apart into the modules below it that hold tensors. Named modules that share a table go on sharing it, where
PEFT trains a copy for each; a table shared with a module that is not named is copied, as there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from configs.runtime.faults import InputFault, suggestion
from model.network.trained_modules import release

Place = tuple[str, str]
"""A module's dotted path and the name of one of its own tensors."""


def find(network: nn.Module, names: Sequence[str], adapted: Collection[str], where: str) -> tuple[str, ...]:
    """Return the paths of modules with tensors of their own that the names mean, in the network's order.

    Args:
        network: the host.
        names: last components of modules' paths, as many as one likes.
        adapted: paths of linears that have an adapter.
        where: the plan's file, named in faults.

    Raises:
        InputFault: for a name that fits no module, or means one that has an adapter.
    """
    holders = [path for path, module in network.named_modules(remove_duplicate=False) if _own(module)]
    faults, found = [], set()
    for name in names:
        mine = [path for path in holders if _fits(name, path)]
        both = [path for path in mine if path in adapted]
        if not mine:
            words = dict.fromkeys(word for path in holders for word in path.split("."))
            faults.append(f"no module '{name}' that holds weights{suggestion(name, words)}")
        elif both:
            faults.append(f"'{name}': {both[0]} has an adapter; a module has one or trains whole, not both")
        found.update(mine)
    if faults:
        raise InputFault(*(f"{where}: modules_to_save: {fault}" for fault in faults))
    return tuple(path for path in holders if path in found)


def _own(module: nn.Module) -> list[str]:
    return [name for name, parameter in module._parameters.items() if parameter is not None]


def _fits(name: str, path: str) -> bool:
    """Tell whether the path, or that of a module above it, ends with the name's components."""
    return f".{name}." in f".{path}."


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a dotted path is one of the modules or lies below one."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def let_train(network: nn.Module, modules: Sequence[str], values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Let modules train in float32 and return what to tell about tables they no longer share.

    Args:
        network: the host; its configuration says from then on if it no longer ties its tables.
        modules: paths from `find`.
        values: tensors by full name that will be loaded; tables that differ there cannot be one.
    """
    notes = _untie(network, modules, values)
    stored = {path: next(network.get_submodule(path).parameters()).dtype for path in modules}
    for path, dtype in stored.items():
        module = network.get_submodule(path)
        # Logits may be finer than hidden states; what stands between frozen modules must not.
        release(module, dtype, keeps=module is not network.get_output_embeddings())
    return notes


def _untie(network: nn.Module, modules: Sequence[str], values: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Give tables that must part one tensor for each value they may have."""
    shared: dict[nn.Parameter, list[Place]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        for name in _own(module):
            shared.setdefault(module._parameters[name], []).append((path, name))
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
            notes.append(f"modules_to_save: {apart} shared one table, each has its own from now on")
    return tuple(notes)


def _groups(
    places: Sequence[Place], named: Collection[str], values: Mapping[str, Tensor]
) -> list[list[Place]]:
    """Return the places that go on sharing a tensor; those that are not named come first."""
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
