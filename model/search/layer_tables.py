"""The tables `[layer_i]` of score and frequency files: a value for each module of a layer."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from model.site import SiteKey, role_named

Value = TypeVar("Value")

_LAYER = re.compile(r"layer_(0|[1-9][0-9]{0,2})")


def is_layer(name: str, content: Any) -> bool:
    """Return whether a key of a file names a layer, also if its form is wrong."""
    return _LAYER.fullmatch(name) is not None or (name.startswith("layer_") and isinstance(content, dict))


def read_layers(
    table: Mapping[str, Any], take: Callable[[Any], Value], faults: list[str]
) -> dict[SiteKey, Value]:
    """Return module -> value, in order; faults are appended, each beginning with table and key.

    Args:
        table: the file's content; keys that name no layer are skipped.
        take: checks a value and returns it; its ValueError has the words after `WHERE: `.
        faults: receives the lines.
    """
    values: dict[SiteKey, Value] = {}
    for name, content in table.items():
        found = _LAYER.fullmatch(name)
        if found and isinstance(content, dict):
            _read_layer(values, int(found[1]), content, take, faults)
        elif is_layer(name, content):
            faults.append(f"{name}: must be a table [layer_i], i the number of a layer")
    return dict(sorted(values.items()))


def write_layers(values: Mapping[SiteKey, Value]) -> dict[str, dict[str, Value]]:
    """Return the tables of module -> value, layers and roles in order."""
    tables: dict[str, dict[str, Value]] = {}
    for key in sorted(values):
        tables.setdefault(f"layer_{key.layer}", {})[key.role] = values[key]
    return tables


def _read_layer(
    values: dict[SiteKey, Value],
    layer: int,
    content: Mapping[str, Any],
    take: Callable[[Any], Value],
    faults: list[str],
) -> None:
    for name, written in content.items():
        where = f"[layer_{layer}] {name}"
        try:
            key = SiteKey(layer, role_named(name))
            value = take(written)
        except ValueError as refusal:
            faults.append(f"{where}: {refusal}")
            continue
        if key in values:
            faults.append(f"{where}: is given twice, under two names of {key.role}")
        values[key] = value
