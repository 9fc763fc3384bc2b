"""The contract of a model family: rows of attribute paths on stock `transformers` networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.runtime import kinds
from model.site import SiteKey

NormPlacement = Literal["pre", "post"]


@dataclass(frozen=True)
class Family:
    """Everything the framework knows about one family of networks.

    Args:
        name: the FAMILY of `--model FAMILY_lora`; the file's name.
        model_types: `config.model_type` words that belong to the family.
        layer: path of a layer in every head variant of the network, with `{layer}` for its number.
        roles: role -> path of the linear below the layer.
        attention: path below the layer of the module that computes attention, called with the layer's input
            where norms stand after their part.
        attention_norm: path below the layer of the norm that belongs to attention.
        ffn_norm: path below the layer of the norm that belongs to the feed-forward part.
        placement: config -> whether those norms stand before or after their part (`pre` or `post`).
        heads: objective -> the modules of the task's head, which train and travel with the adapter; the
            objectives that are absent cannot be served. Language models train no head.
        positions: config -> the longest input in tokens the network can take.
        tiny: keyword arguments of a config small enough for offline tests and smoke runs.
        ffn_norms: model_type -> path of the feed-forward part's norm, where it is not `ffn_norm`.
        optional: modules of the classification network which a base may lack; they then train and travel
            with the head (BERT's pooler).
        renorms: paths below the layer of the norms that the published wiring of shortcuts applies once more,
            after shortcut2 and after shortcut1; None: attention's and the feed-forward part's.
    """

    name: str
    model_types: tuple[str, ...]
    layer: str
    roles: Mapping[str, str]
    attention: str
    attention_norm: str
    ffn_norm: str
    placement: Callable[[Any], NormPlacement]
    heads: Mapping[str, tuple[str, ...]]
    positions: Callable[[Any], int]
    tiny: Mapping[str, Any]
    ffn_norms: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    renorms: tuple[str, str] | None = None

    def path(self, key: SiteKey) -> str:
        """Return the dotted path of a linear site in the network."""
        return f"{self.layer.format(layer=key.layer)}.{self.roles[key.role]}"

    def norms(self, config: Any) -> tuple[str, str]:
        """Return the paths below the layer of attention's norm and of the feed-forward part's."""
        return self.attention_norm, self.ffn_norms.get(config.model_type, self.ffn_norm)


def families() -> tuple[Family, ...]:
    """Return every family there is, sorted by name."""
    return tuple(kinds.load(kinds.FAMILIES, name) for name in kinds.names(kinds.FAMILIES))


def model_types() -> dict[str, Family]:
    """Return the family of every `model_type` word that the families know."""
    return {word: family for family in families() for word in family.model_types}


@dataclass(frozen=True)
class Dimensions:
    """Counts that a configuration plan needs: layers and attention heads."""

    layers: int
    heads: int
    key_value_heads: int


def dimensions(config: Any) -> Dimensions:
    """Read the counts from a `transformers` configuration; without grouped queries both head counts agree."""
    heads = config.num_attention_heads
    return Dimensions(config.num_hidden_layers, heads, getattr(config, "num_key_value_heads", None) or heads)


def dimensions_from_json(config: Mapping[str, Any]) -> Dimensions | None:
    """Read the counts from the mapping of a config.json; None where the file leaves them to defaults."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    if type(layers) is not int or type(heads) is not int:
        return None
    return Dimensions(layers, heads, config.get("num_key_value_heads") or heads)
