"""The names of a plan's tables: the sites that a table is for, and the granularities that it belongs to."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.runtime.faults import suggestion, unknown
from configs.schema.values import ValueKind
from model.site import HEAD_ROLES

_LAYER = re.compile(r"model_layer_(0|[1-9][0-9]{0,5})")
_HEAD = re.compile(r"head_(0|[1-9][0-9]{0,5})")
_GROUPS = {
    "default": ("network", "layer", "head"),
    "all_layers": ("network",),
    "headwise_default": ("head",),
    "model_layer_0": ("layer", "head"),
}


@dataclass(frozen=True)
class Form:
    """The tables and keys that one kind of plan may have.

    Args:
        method: the kind of adapter that its tables configure; None where a key `method` names it.
        granularities: allowed values of `granularity`.
        roles: spelling of a role -> role.
        keys: key -> (field of `AdapterConfig`, its values).
        required: keys that every table must have.
        aliases: other names of keys -> key.
        strength: the key of the factor that multiplies the delta.
    """

    method: str | None
    granularities: tuple[str, ...]
    roles: Mapping[str, str]
    keys: Mapping[str, tuple[str, ValueKind]]
    required: tuple[str, ...]
    strength: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def top_keys(self) -> tuple[str, ...]:
        """Keys outside all tables."""
        return ("granularity",) if self.method else ("granularity", "method", "modules_to_save", "freezing")

    @property
    def groups(self) -> tuple[str, ...]:
        """First components of tables' names; `model_layer_0` represents every layer."""
        return tuple(name for name, ones in _GROUPS.items() if set(ones) & set(self.granularities))


@dataclass(frozen=True)
class NamedTable:
    """A table of the file.

    Args:
        name: full name with the project's name of the role, e.g. `model_layer_0.q_proj.head_1`.
        written: the name in the file.
        granularities: those in which it is used.
        keys: its keys, without inner tables.
    """

    name: str
    written: str
    granularities: tuple[str, ...]
    keys: Mapping[str, Any]


def layer_of(name: str) -> int | None:
    """Return the layer's number in a table's name; None where it has none."""
    found = _LAYER.fullmatch(name.split(".")[0])
    return int(found[1]) if found else None


def head_of(name: str) -> int | None:
    """Return the head's number in a table's name; None where it has none."""
    found = _HEAD.fullmatch(name.split(".")[-1])
    return int(found[1]) if found else None


def named_tables(document: Mapping[str, Any], form: Form, faults: list[str]) -> Iterator[NamedTable]:
    """Yield every table with a correct name; faults, which begin with the name, are appended to `faults`."""
    for group, content in document.items():
        if group in form.top_keys:
            continue
        if group not in form.groups and not _LAYER.fullmatch(group):
            shown = f"[{group}]: unknown table" if isinstance(content, dict) else f"{group}: unknown key"
            faults.append(f"{shown}{suggestion(group, [*form.groups, *form.top_keys])}")
        elif not isinstance(content, dict):
            faults.append(f"{group}: must be a table")
        elif group == "default":
            faults += [f"[default.{key}]: unknown table" for key in content if isinstance(content[key], dict)]
            yield NamedTable(group, group, form.granularities, content)
        else:
            yield from _group_tables(group, content, form, faults)


def _group_tables(
    group: str, content: Mapping[str, Any], form: Form, faults: list[str]
) -> Iterator[NamedTable]:
    first: dict[str, str] = {}
    for word, inner in content.items():
        if word not in form.roles:
            faults.append(f"[{group}.{word}]: {unknown('role', word, form.roles)}")
        elif not isinstance(inner, dict):
            faults.append(f"{group}.{word}: must be a table")
        elif first.setdefault(form.roles[word], word) != word:
            other = first[form.roles[word]]
            faults.append(f"[{group}.{word}]: given twice, as it is an alias of [{group}.{other}]")
        else:
            yield from _role_tables(group, word, inner, form, faults)


def _role_tables(
    group: str, word: str, content: Mapping[str, Any], form: Form, faults: list[str]
) -> Iterator[NamedTable]:
    written, role = f"{group}.{word}", form.roles[word]
    name, has_heads = f"{group}.{role}", role in HEAD_ROLES and group != "all_layers"
    heads = {key: value for key, value in content.items() if isinstance(value, dict)}
    for head, keys in heads.items():
        if not has_heads or not _HEAD.fullmatch(head):
            near = suggestion(head, ["head_0"] if role in HEAD_ROLES else [])
            faults.append(f"[{written}.{head}]: unknown table{near}")
        else:
            yield NamedTable(f"{name}.{head}", f"{written}.{head}", ("head",), keys)
    own = {key: value for key, value in content.items() if key not in heads}
    if own or not heads:
        yield NamedTable(name, written, _granularities(group, role), own)
        if group == "headwise_default" and role in HEAD_ROLES:
            faults.append(f"[{name}]: {role} needs a table for each head, [{name}.head_0]")


def _granularities(group: str, role: str) -> tuple[str, ...]:
    found = _GROUPS.get(group, _GROUPS["model_layer_0"])
    return ("layer",) if found == _GROUPS["model_layer_0"] and role in HEAD_ROLES else found
