"""The contract of a model family: the paths of its modules in stock `transformers` networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from configs.runtime import kinds
from model.site import SiteKey

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NormPlacement = Literal["pre", "post"]


@dataclass(frozen=True)
class Family:
    """Everything that the framework knows about one family of networks.

    Args:
        name: the FAMILY of `--model FAMILY_lora`; the file's name.
        model_types: values of `config.model_type` that belong to the family.
        layer: path of a layer in networks with any head, with `{layer}` for its number.
        roles: role -> path of its linear below the layer.
        attention: path below the layer of the module that computes attention; in post-norm networks it gets
            the layer's input.
        attention_norm: path below the layer of attention's norm.
        ffn_norm: path below the layer of the feed-forward block's norm.
        placement: config -> whether these norms come before or after their block (`pre` or `post`).
        heads: objective -> the modules of the task's head, which are trained and exported with the adapter;
            other objectives are not supported. Language models train no head.
        positions: config -> the greatest length of an input, in tokens.
        tiny: keyword arguments of a configuration small enough for offline tests.
        ffn_norms: model_type -> path of the feed-forward block's norm, where it is not `ffn_norm`.
        optional: modules of the classification network that a base may lack (BERT's pooler); they are then
            trained and exported with the head.
        renorms: paths below the layer of the norms that the published wiring of shortcuts applies again,
            after shortcut2 and after shortcut1; None: attention's and the feed-forward block's.
        not_only_tokens: roles whose linears also project something that has no token, such as positions.
    """

    name: str
    model_types: tuple[str, ...]
    layer: str
    roles: Mapping[str, str]
    attention: str
    attention_norm: str
    ffn_norm: str
    placement: Callable[["PreTrainedConfig"], NormPlacement]
    heads: Mapping[str, tuple[str, ...]]
    positions: Callable[["PreTrainedConfig"], int]
    tiny: Mapping[str, Any]
    ffn_norms: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    renorms: tuple[str, str] | None = None
    not_only_tokens: tuple[str, ...] = ()

    def path(self, key: SiteKey) -> str:
        """Return the dotted path of a linear site in the network."""
        return f"{self.layer.format(layer=key.layer)}.{self.roles[key.role]}"

    def norms(self, config: "PreTrainedConfig") -> tuple[str, str]:
        """Return the paths below the layer of the norms of attention and of the feed-forward block."""
        return self.attention_norm, self.ffn_norms.get(config.model_type, self.ffn_norm)


def families() -> tuple[Family, ...]:
    """Return all families, sorted by name."""
    return tuple(kinds.load(kinds.FAMILIES, name) for name in kinds.names(kinds.FAMILIES))


def model_types() -> dict[str, Family]:
    """Return model_type -> its family, for all supported ones."""
    return {word: family for family in families() for word in family.model_types}


@dataclass(frozen=True)
class Dimensions:
    """The numbers of layers, of attention heads and of key-value heads of a network."""

    layers: int
    heads: int
    key_value_heads: int


def dimensions(config: "PreTrainedConfig") -> Dimensions:
    """Return the numbers in a configuration; without grouped queries both numbers of heads are equal."""
    heads = config.num_attention_heads
    return Dimensions(config.num_hidden_layers, heads, getattr(config, "num_key_value_heads", None) or heads)


def dimensions_from_json(config: Mapping[str, Any]) -> Dimensions | None:
    """Return the numbers in a config.json; None where it leaves them to the defaults of its architecture."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    if type(layers) is not int or type(heads) is not int:
        return None
    return Dimensions(layers, heads, config.get("num_key_value_heads") or heads)
