"""Read one field of a row as text, class label or number, or refuse the row with the reason."""

import json
import math
import re
from collections.abc import Sequence

from dataset.task import LabelFault, Row, RowFault

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


_BOOLEAN_WORDS = (("false", "true"), ("False", "True"), ("FALSE", "TRUE"), ("0", "1"))
"""Labels for (False, True)."""


def printable(text: str, width: int = 60) -> str:
    """Return a text as one line without control characters, at most `width` of them, for messages."""
    safe = (
        text.encode("unicode_escape", "backslashreplace").decode("ascii") if not text.isprintable() else text
    )
    return safe if len(safe) <= width else f"{safe[:width]}..."


def text_field(row: Row, name: str) -> str:
    """Return a row's text field, unchanged.

    Raises:
        RowFault: when it is missing, empty, not a text, or not valid Unicode.
    """
    value = _present(row, name)
    if not isinstance(value, str):
        raise RowFault(f"field '{name}' must be text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowFault(f"field '{name}' has an unpaired surrogate, which is not valid Unicode") from None
    return value


def label_field(row: Row, name: str, words: Sequence[str]) -> int:
    """Return the class number of a row's label: one of `words`, or, on the hub, its number.

    Raises:
        LabelFault: when it is not one of the labels.
        RowFault: when it is missing or empty.
    """
    value = _present(row, name)
    number = _whole(value)
    if number is not None and 0 <= number < len(words):
        return number
    if isinstance(value, str) and value in words:
        return words.index(value)
    if isinstance(value, bool):
        return _boolean_label(value, words)
    raise LabelFault(_written(value), ", ".join(words))


def class_field(row: Row, name: str, words: Sequence[str]) -> int:
    """Return the class number of a label of a user's file, where a number is a class name too.

    Raises:
        LabelFault: when it is not one of the labels.
        RowFault: when it is missing, empty, or cannot be a class name (`word_field`).
    """
    word = word_field(row, name)
    if word in words:
        return words.index(word)
    value = row[name]
    if isinstance(value, bool):
        return _boolean_label(value, words)
    raise LabelFault(printable(word), ", ".join(words))


def word_field(row: Row, name: str) -> str:
    """Return a label of a user's file as a word.

    A whole number is written out, 1.0 like 1; a boolean is `true` or `false`, as in JSON.

    Raises:
        RowFault: when it is missing, empty, or neither a text, a whole number nor a boolean.
    """
    value = _present(row, name)
    if isinstance(value, bool):
        return _written(value)
    number = _whole(value)
    if number is not None:
        return str(number)
    if not isinstance(value, str):
        raise RowFault(f"field '{name}' must be a word or a whole number, got {_written(value)}")
    return text_field(row, name)


def type_field(row: Row, name: str) -> str:
    """Return a row's type of task, a word or a whole number; `""` where it has none.

    Raises:
        RowFault: when it is neither a text nor a whole number.
    """
    return "" if row.get(name) in (None, "") else word_field(row, name)


def number_field(row: Row, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a row's finite number within limits.

    Args:
        row: the row.
        name: the field.
        low: smallest number that is allowed.
        high: largest number that is allowed.

    Raises:
        LabelFault: when it is not a number, or outside the limits.
        RowFault: when the field is missing or empty.
    """
    value = _present(row, name)
    number = _number(value)
    if not (math.isfinite(number) and low <= number <= high):
        limits = "finite numbers" if math.isinf(low) else f"{low:g} to {high:g}"
        raise LabelFault(_written(value), limits)
    return number


def is_unlabelled(row: Row, name: str = "label") -> bool:
    """Return whether a row has no label: the field is missing, or -1 as on the hub."""
    return row.get(name, -1) in (-1, -1.0)


def _boolean_label(value: bool, words: Sequence[str]) -> int:
    """Return the class number of a boolean, where the two labels are booleans or 0 and 1.

    Raises:
        LabelFault: when other labels are allowed.
    """
    for pair in _BOOLEAN_WORDS:
        if len(words) == len(pair) and set(words) == set(pair):
            return words.index(pair[value])
    raise LabelFault(_written(value), ", ".join(words))


def _whole(value: object) -> int | None:
    """Return the whole number that an integer or a float is; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _written(value: object) -> str:
    """Return a value as JSON writes it, a text without quotation marks, for messages."""
    if isinstance(value, str):
        return printable(value)
    try:
        return printable(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError):  # a value of parquet that JSON has no form for; an integer of 10^4 digits
        return f"a {type(value).__name__}"


def _number(value: object) -> float:
    """Return the number that a value is or spells out; NaN when it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a JSON integer of hundreds of digits
            return math.inf
    is_spelled = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    return float(str(value)) if is_spelled else math.nan


def _present(row: Row, name: str) -> object:
    value = row.get(name)
    if value is None or value == "":
        raise RowFault(f"field '{name}' is {'empty' if name in row else 'missing'}")
    return value
