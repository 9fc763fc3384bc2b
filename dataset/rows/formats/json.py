"""JSON files: one array of objects, as Alpaca's own file is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from dataset.rows.json_values import json_value_at
from dataset.task import Numbered, Refused, RowFault, Rows

_SPACE = re.compile(r"[ \t\n\r]*")


def read_json_array(path: Path) -> Rows:
    """Read an array of objects; a row's line is the one it begins in. An element that is none is refused.

    Raises:
        InputFault: naming the line from which on the file is no such array.
    """
    found = Rows()
    for line, value in _elements(path, _text(path)):
        if isinstance(value, dict):
            found.rows.append(Numbered(line, value))
        else:
            reason = f"a JSON object was expected, got {type(value).__name__}"
            found.refused.append(Refused(line, reason))
    return found


def _elements(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield each element of the array and its line; a fault inside one leaves no way to find the next."""
    at, line, passed = _skip(text, 0), 1, 0
    if text[at : at + 1] != "[":
        raise InputFault(f"{path}:{text.count(chr(10), 0, at) + 1}: an array in brackets was expected")
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
        raise InputFault(f"{path}:{line}: the array is not closed, a comma or a bracket was expected")
    if _skip(text, at + 1) != len(text):
        raise InputFault(f"{path}:{line}: something stands behind the array")


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputFault(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputFault(f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8") from error


READ = read_json_array
