"""Hand a layer's input, before its first norm, to whatever in the layer reads it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from model.network.family import model_types


class LayerReader(Protocol):
    """What reads the input of a layer in each of its passes."""

    def read(self, x: Tensor) -> None:
        """Take the input. x: (B, T, D)."""


class LayerInput:
    """A hook at the module of a layer that sees its input first: the first norm, or attention before it.

    Gradient checkpointing recomputes a layer's `forward`, in some releases without the hooks of the layer
    itself; those of the modules in it run again.

    Args:
        network: the host; its classes, places and state-dict keys do not change.
        layer: the number of the layer.
        readers: what reads its input.
    """

    def __init__(self, network: PreTrainedModel, layer: int, readers: Sequence[LayerReader]) -> None:
        self.readers = list(readers)
        family = model_types()[network.config.model_type]
        is_pre = family.placement(network.config) == "pre"
        entry = family.norms(network.config)[0] if is_pre else family.attention
        module = network.get_submodule(f"{family.layer.format(layer=layer)}.{entry}")
        self._handle = module.register_forward_pre_hook(self._enter, with_kwargs=True)

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._handle.remove()

    def _enter(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x: Tensor = args[0] if args else kwargs["hidden_states"]
        for reader in self.readers:
            reader.read(x)
