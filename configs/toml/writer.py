"""Write TOML."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from re import fullmatch
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def toml_text(table: Mapping[str, Any]) -> str:
    """Return a table as TOML text: values first, then nested tables under their full names.

    Raises:
        ValueError: for a number that is not finite, and for a type that TOML does not have.
    """
    return "\n".join(_table(table, ())).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], name: tuple[str, ...]) -> Iterator[str]:
    nested = {key: value for key, value in table.items() if _is_table(value) or _is_table_list(value)}
    for key, value in table.items():
        if key not in nested:
            yield f"{_key(key)} = {value_text(value)}"
    for key, value in nested.items():
        full = (*name, key)
        header = ".".join(map(_key, full))
        if _is_table(value):
            # A table of tables needs no header of its own.
            if not value or not all(_is_table(inner) for inner in value.values()):
                yield f"\n[{header}]"
            yield from _table(value, full)
        else:
            for item in value:
                yield f"\n[[{header}]]"
                yield from _table(item, full)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_table, value))


def _key(key: str) -> str:
    return key if fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def value_text(value: Any) -> str:
    """Return one value as TOML.

    Raises:
        ValueError: for a number that is not finite, and for a type that TOML does not have.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {value_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(value_text, value))}]"
    raise ValueError(f"TOML has no type for {type(value).__name__}")


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite, got {value}")
    return repr(value)


def _string(text: str) -> str:
    return f'"{"".join(map(_character, text))}"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if "\ud800" <= character <= "\udfff":
        raise ValueError("half of a surrogate pair is not a character")
    is_control = character < " " or "\x7f" <= character <= "\x9f"
    return f"\\u{ord(character):04x}" if is_control else character
