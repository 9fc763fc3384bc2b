"""LoRAs of other tools outside the layers (embeddings, pooler), added to the weights on load.

Adapters of this program are attached to linears within the layers. A LoRA elsewhere has the same effect when
its delta is added to the weight. It is then part of the base: it can be tested, merged and used for
generation, but neither trained nor saved again.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn
from transformers import PreTrainedModel

from configs.runtime.faults import InputFault
from model.exchange.factors import Factors
from model.exchange.peft_format import PeftAdapter
from model.network.family import Family


def split_outside(
    network: PreTrainedModel, family: Family, file: PeftAdapter
) -> tuple[PeftAdapter, dict[str, Factors]]:
    """Return an adapter without the modules outside the layers, and those by name.

    Args:
        network: the host, of which only shapes are read.
        family: its family.
        file: an adapter; one with shared matrices is cut to the widths of its modules.

    Raises:
        InputFault: naming a module that the network lacks, or whose shape is another one.
    """
    if file.shares_inputs:
        cut = {
            name: replace(one, a=one.a[:, : _width(network, name, file)])
            for name, one in file.modules.items()
        }
        file = replace(file, modules=cut, shares_inputs=False)
    layers = family.layer.format(layer="")
    outside = {name: one for name, one in file.modules.items() if not name.startswith(layers)}
    for name, factors in outside.items():
        module = _module(network, name, file)
        shape = (factors.b.shape[0], factors.a.shape[1])
        if module is None or tuple(module.weight.shape) != shape:
            raise InputFault(
                f"{file.source}: {name} is no adaptable linear layer of this network, nor another module with"
                f" a weight of shape {shape}"
            )
    if not outside:
        return file, {}
    return replace(file, modules={n: one for n, one in file.modules.items() if n not in outside}), outside


@torch.no_grad()
def add_outside(network: PreTrainedModel, outside: Mapping[str, Factors]) -> tuple[str, ...]:
    """Add the deltas of modules outside the layers to their weights, and return a note for each.

    A weight that another module shares is copied first: the delta belongs to one of the two.

    Args:
        network: the host.
        outside: from `split_outside`.
    """
    notes = []
    for name, factors in outside.items():
        module = network.get_submodule(name)
        assert isinstance(module, nn.Linear | nn.Embedding)  # as `split_outside` saw
        if _is_shared(network, module):
            module.weight = nn.Parameter(module.weight.clone(), requires_grad=module.weight.requires_grad)
            network.config.tie_word_embeddings = False
            network.all_tied_weights_keys = {}
        delta = factors.scale * (factors.b.float() @ factors.a.float())
        module.weight.copy_(module.weight.float() + delta.to(module.weight.device))
        notes.append(f"{name}: its LoRA, outside the layers, is added to the weight and is not trained")
    return tuple(notes)


def _module(network: nn.Module, name: str, file: PeftAdapter) -> nn.Linear | nn.Embedding | None:
    try:
        module = network.get_submodule(name)
    except AttributeError:
        return None
    return module if isinstance(module, nn.Linear | nn.Embedding) else None


def _width(network: nn.Module, name: str, file: PeftAdapter) -> int:
    module = _module(network, name, file)
    if module is None:
        raise InputFault(f"{file.source}: {name} is no adaptable linear layer of this network")
    return module.weight.shape[1]


def _is_shared(network: nn.Module, module: nn.Linear | nn.Embedding) -> bool:
    return sum(one is module.weight for _, one in network.named_parameters(remove_duplicate=False)) > 1
