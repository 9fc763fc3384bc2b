"""Read JSON strictly: no NaN, no repeated key, no number or nesting that Python refuses."""

import json
from collections.abc import Callable
from typing import Any

from dataset.rows.fields import printable
from dataset.task import RowFault


def json_value(text: str) -> Any:
    """Return the single value that a text holds.

    Raises:
        RowFault: with the reason, when it holds none or is invalid.
    """
    return _decoded(_DECODER.decode, text)


def json_value_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at position `start`, and the position after it.

    Raises:
        RowFault: with the reason, when the value is invalid.
    """
    return _decoded(_DECODER.raw_decode, text, start)


def _decoded(decode: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except json.JSONDecodeError as error:
        raise RowFault(f"invalid JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError:
        raise RowFault("invalid JSON: nested too deep") from None
    except RowFault:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise RowFault(f"invalid JSON: {str(error).splitlines()[0]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RowFault(f"key '{printable(key)}' appears twice")
        found[key] = value
    return found


def _no_constant(word: str) -> None:
    raise RowFault(f"invalid JSON: {word} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
