"""The TOML table `[flow]`: how several trained LoRA sets are fused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from configs.runtime.faults import InputFault
from configs.schema.number_values import Real
from configs.toml.binding import bind

Combine = Literal["gate", "bias", "uniform", "constant"]
Start = Literal["last", "uniform"]
FIXED: tuple[Combine, ...] = ("uniform", "constant")
"""Values of `combine` with which nothing trains."""


@dataclass(frozen=True)
class FlowSettings:
    """The table `[flow]`."""

    combine: Combine = "gate"
    """gate: weights by token; bias: a trained weight for each layer; uniform: 1 / k; constant: `weights`."""
    temperature: Annotated[float, Real(1e-6, 1e6)] = 1.0
    """T, which divides the gates' logits."""
    initial: Start = "last"
    """last: gates start as the last set alone; uniform: with the same weight for each."""
    weights: tuple[float, ...] = ()
    """Of `constant`, one for each set."""
    names: tuple[str, ...] = ()
    """Of the sets, in records; by default those of their directories."""

    def __post_init__(self) -> None:
        """Refuse weights that are missing or not used."""
        if (self.combine == "constant") != bool(self.weights):
            what = "needs" if self.combine == "constant" else "does not use"
            raise ValueError(f'weights: combine = "{self.combine}" {what} weights, one for each set')


def flow_settings(table: Mapping[str, Any], where: str, count: int) -> FlowSettings:
    """Bind the table and compare it with the number of sets.

    Args:
        table: its content.
        where: what begins each message, e.g. `run.toml: [flow]`.
        count: k, the number of sets.

    Raises:
        InputFault: naming the key.
    """
    found = bind(FlowSettings, table, where)
    for key in ("weights", "names"):
        values = getattr(found, key)
        if values and len(values) != count:
            raise InputFault(f"{where}: {key}: {len(values)} of them for {count} sets")
    if len(set(found.names)) < len(found.names):
        raise InputFault(f"{where}: names: each set needs a name of its own")
    return found
