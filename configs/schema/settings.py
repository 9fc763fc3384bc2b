"""A value with its origin, and the values, tables and faults of one source of options."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NONE_WORD = "NA"
"""The text that means "not given" in a TOML file or a flag."""


@dataclass(frozen=True)
class Setting:
    """The given value of an option.

    Args:
        value: the checked value.
        source: its origin, as the effective configuration names it.
        where: the beginning of messages about it.
    """

    value: Any
    source: str
    where: str


@dataclass
class Layer:
    """The options of one source.

    Args:
        settings: field of `Options` -> its value.
        tables: free TOML tables.
        faults: messages of the form `WHERE: WHAT`.
        touched: fields with a wrong value or a misspelt name; no further fault is reported about them.
    """

    settings: dict[str, Setting] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)


def stack(layers: Iterable[Layer]) -> Layer:
    """Merge sources: later values override, tables are merged key by key, faults are concatenated."""
    whole = Layer()
    for layer in layers:
        whole.settings.update(layer.settings)
        for name, table in layer.tables.items():
            whole.tables[name] = whole.tables.get(name, {}) | table
        whole.faults.extend(layer.faults)
        whole.touched.update(layer.touched)
    return whole
