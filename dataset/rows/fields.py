"""Take one field of a row as text, class label or number, or say why it is none."""

import math
import re
from collections.abc import Sequence

from dataset.task import LabelFault, Row, RowFault

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def shown(text: str, width: int = 60) -> str:
    """Return text fit for a message: one line, no control characters, cut to a width."""
    safe = (
        text.encode("unicode_escape", "backslashreplace").decode("ascii") if not text.isprintable() else text
    )
    return safe if len(safe) <= width else f"{safe[:width]}..."


def text_field(row: Row, name: str) -> str:
    """Return a row's text field, unchanged.

    Raises:
        RowFault: when it is missing, empty, no text, or no valid Unicode.
    """
    value = _present(row, name)
    if not isinstance(value, str):
        raise RowFault(f"field '{name}' must be text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowFault(f"field '{name}' holds half a surrogate pair") from None
    return value


def label_field(row: Row, name: str, words: Sequence[str]) -> int:
    """Return the class number of a row's label: a word of `words`, or on the hub its number.

    Raises:
        LabelFault: when the label is outside the set.
        RowFault: when there is none.
    """
    value = _present(row, name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
        return value
    if isinstance(value, str) and value in words:
        return words.index(value)
    raise LabelFault(shown(str(value)), ", ".join(words))


def word_field(row: Row, name: str) -> str:
    """Return a label of a user's file as its word; a whole number counts as the word that writes it.

    Raises:
        RowFault: when it is missing, empty, or neither text nor a whole number.
    """
    value = _present(row, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_field(row, name)


def type_field(row: Row, name: str) -> str:
    """Return what sort of task a row is, a word or a whole number; `""` where it does not say.

    Raises:
        RowFault: when it is neither.
    """
    return "" if row.get(name) in (None, "") else word_field(row, name)


def number_field(row: Row, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a row's finite number within limits.

    Raises:
        LabelFault: when it is none, or outside.
        RowFault: when the field is missing or empty.
    """
    value = _present(row, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_written = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    try:
        number = float(value) if is_number or is_written else math.nan
    except OverflowError:  # a JSON whole number of hundreds of digits
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        limits = "finite numbers" if math.isinf(low) else f"{low:g} to {high:g}"
        raise LabelFault(shown(str(value)), limits)
    return number


def is_unlabelled(row: Row, name: str = "label") -> bool:
    """Tell whether a row has no label: no such field, or the hub's -1."""
    return row.get(name, -1) in (-1, -1.0)


def _present(row: Row, name: str) -> object:
    value = row.get(name)
    if value is None or value == "":
        raise RowFault(f"field '{name}' is {'empty' if name in row else 'missing'}")
    return value
