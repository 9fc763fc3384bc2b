"""A value with its origin, and what one source of options gives: values, tables and faults."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NONE_WORD = "NA"
"""The text that stands for "not given" in a TOML or a flag."""


@dataclass(frozen=True)
class Setting:
    """A value that was given.

    Args:
        value: the checked value.
        source: what the effective configuration calls its origin.
        where: what a refusal of the value begins with.
    """

    value: Any
    source: str
    where: str


@dataclass
class Layer:
    """What one source gives.

    Args:
        settings: field of `Options` -> its value.
        tables: free TOML tables.
        faults: refusals, each `WHERE: WHAT`.
        touched: fields that were given wrongly or were meant by a misspelt name; they count as given.
    """

    settings: dict[str, Setting] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)


def stack(layers: Iterable[Layer]) -> Layer:
    """Lay sources over each other: later values win, tables are merged key by key, faults add up."""
    whole = Layer()
    for layer in layers:
        whole.settings.update(layer.settings)
        for name, table in layer.tables.items():
            whole.tables[name] = whole.tables.get(name, {}) | table
        whole.faults.extend(layer.faults)
        whole.touched.update(layer.touched)
    return whole
