"""JSON files of `local` that hold one array of objects, as the file of Alpaca does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.runtime.files import read_regular
from dataset.rows.json_values import json_value_at
from dataset.task import Numbered, Refused, RowFault, Rows

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json_array(path: Path) -> Rows:
    """Read an array of objects; the line of a row is the one that it begins in. Other elements are refused.

    Raises:
        InputFault: naming the line where the file stops being a JSON array.
    """
    found = Rows()
    for line, value in _elements(path, _text(path)):
        if isinstance(value, dict):
            found.rows.append(Numbered(line, value))
        else:
            reason = f"expected a JSON object, got {type(value).__name__}"
            found.refused.append(Refused(line, reason))
    return found


def _elements(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield each element of the array and its line; after invalid JSON no further element can be found."""
    at, line, passed = _skip(text, 0), 1, 0
    if text[at : at + 1] != "[":
        first = text.count(chr(10), 0, at) + 1
        hint = ", got an object; a file with an object on each line has the ending .jsonl"
        raise InputFault(f"{path}:{first}: expected a JSON array{hint if text[at : at + 1] == '{' else ''}")
    at = _skip(text, at + 1)
    is_open = text[at : at + 1] != "]"
    while is_open:
        line, passed = line + text.count("\n", passed, at), at
        try:
            value, at = json_value_at(text, at)
        except RowFault as fault:
            raise InputFault(f"{path}:{line}: {fault}") from fault
        yield line, value
        at = _skip(text, at)
        is_open = text[at : at + 1] == ","
        at = _skip(text, at + 1) if is_open else at
    line += text.count("\n", passed, at)
    if text[at : at + 1] != "]":
        raise InputFault(f"{path}:{line}: the array is not closed, expected a comma or a bracket")
    if _skip(text, at + 1) != len(text):
        raise InputFault(f"{path}:{line}: unexpected text after the array")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None  # the pattern matches an empty text too
    return space.end()


def _text(path: Path) -> str:
    try:
        raw = read_regular(path)
    except OSError as error:
        raise InputFault(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputFault(f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8") from error


READ = read_json_array
