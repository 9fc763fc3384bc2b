"""The configuration of one adapter, as a table of a LoRA or shortcut TOML gives it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AdapterConfig:
    """The adapter that a table plans for each of its sites.

    Args:
        rank: r; 0 leaves the plain linear.
        alpha: scaling constant.
        dropout: probability on the adapter's input.
        adapter_name: name the adapter is saved under.
        disabled: built, but switched off.
        importance: coefficient of the low-rank term.
        init: start with a zero delta; false draws B at random too, as PEFT does.
        fan_in_fan_out: the host stores its weight transposed.
        method: a kind of `model.adapters`.
        extra: keys of that method, to be bound to its options.
        heads: of a projection planned by head, the configuration of each head; rank 0 where it gets none.
            `rank` is then the sum of their ranks, and `alpha` and `init` are not used.
    """

    rank: int
    alpha: float
    dropout: float
    adapter_name: str
    disabled: bool
    importance: float = 1.0
    init: bool = True
    fan_in_fan_out: bool = False
    method: str = "lora"
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    heads: tuple["AdapterConfig", ...] = ()

    @property
    def is_on(self) -> bool:
        """Return whether the adapter exists and works."""
        return self.rank > 0 and not self.disabled and self.importance != 0
