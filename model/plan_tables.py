"""The names of a LoRA TOML's tables: which sites each one means and which granularity it belongs to."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.faults import suggestion, unknown
from model.site import HEAD_ROLES, LINEAR_ROLES

GRANULARITIES = ("network", "layer", "head")
TOP_KEYS = ("granularity", "method")

_LAYER = re.compile(r"model_layer_(0|[1-9][0-9]{0,5})")
_HEAD = re.compile(r"head_(0|[1-9][0-9]{0,5})")
_GROUPS = ("default", "all_layers", "headwise_default", "model_layer_0")


@dataclass(frozen=True)
class NamedTable:
    """A table of the file.

    Args:
        name: full name, e.g. `model_layer_0.q_proj.head_1`.
        granularities: those in which it counts.
        keys: its own keys, without tables inside it.
    """

    name: str
    granularities: tuple[str, ...]
    keys: Mapping[str, Any]


def layer_of(name: str) -> int | None:
    """Return the layer number in a table's name."""
    found = _LAYER.fullmatch(name.split(".")[0])
    return int(found[1]) if found else None


def head_of(name: str) -> int | None:
    """Return the head number in a table's name."""
    found = _HEAD.fullmatch(name.split(".")[-1])
    return int(found[1]) if found else None


def named_tables(document: Mapping[str, Any], faults: list[str]) -> Iterator[NamedTable]:
    """Yield every table that is named rightly; refusals, beginning with the name, go to `faults`."""
    for group, content in document.items():
        if group in TOP_KEYS:
            continue
        if group not in _GROUPS and not _LAYER.fullmatch(group):
            shown = f"[{group}]: unknown table" if isinstance(content, dict) else f"{group}: unknown key"
            faults.append(f"{shown}{suggestion(group, [*_GROUPS, *TOP_KEYS])}")
        elif not isinstance(content, dict):
            faults.append(f"{group}: must be a table")
        elif group == "default":
            faults += [f"[default.{key}]: unknown table" for key in content if isinstance(content[key], dict)]
            yield NamedTable(group, GRANULARITIES, content)
        else:
            for role, inner in content.items():
                yield from _role_tables(group, role, inner, faults)


def _role_tables(group: str, role: str, content: Any, faults: list[str]) -> Iterator[NamedTable]:
    name = f"{group}.{role}"
    if role not in LINEAR_ROLES:
        faults.append(f"[{name}]: {unknown('role', role, LINEAR_ROLES)}")
        return
    if not isinstance(content, dict):
        faults.append(f"{name}: must be a table")
        return
    heads = {key: value for key, value in content.items() if isinstance(value, dict)}
    for head, keys in heads.items():
        if group == "all_layers" or role not in HEAD_ROLES or not _HEAD.fullmatch(head):
            faults.append(f"[{name}.{head}]: unknown table{suggestion(head, ['head_0'])}")
        else:
            yield NamedTable(f"{name}.{head}", ("head",), keys)
    own = {key: value for key, value in content.items() if key not in heads}
    if own or not heads:
        yield NamedTable(name, _granularities(group, role), own)
        if group == "headwise_default" and role in HEAD_ROLES:
            faults.append(f"[{name}]: {role} needs a table for each head, [{name}.head_0]")


def _granularities(group: str, role: str) -> tuple[str, ...]:
    if group == "all_layers":
        return ("network",)
    if group == "headwise_default":
        return ("head",)
    return ("layer",) if role in HEAD_ROLES else ("layer", "head")
