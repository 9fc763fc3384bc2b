"""Read JSON values strictly: no NaN, no repeated key, no number or nesting that Python refuses."""

import json
from collections.abc import Callable
from typing import Any

from dataset.rows.fields import shown
from dataset.task import RowFault


def json_value(text: str) -> Any:
    """Return the one value that a text holds.

    Raises:
        RowFault: saying what is wrong.
    """
    return _reasoned(_DECODER.decode, text)


def json_value_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at a character, and the character behind it.

    Raises:
        RowFault: saying what is wrong.
    """
    return _reasoned(_DECODER.raw_decode, text, start)


def _reasoned(decode: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return decode(*arguments)
    except json.JSONDecodeError as error:
        raise RowFault(f"no valid JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError:
        raise RowFault("no valid JSON: nested too deep") from None
    except RowFault:
        raise
    except ValueError as error:  # a whole number of thousands of digits
        raise RowFault(f"no valid JSON: {str(error).splitlines()[0]}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RowFault(f"key '{shown(key)}' stands twice")
        found[key] = value
    return found


def _no_constant(word: str) -> None:
    raise RowFault(f"no valid JSON: {word} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
