"""Read TOML files, with the line numbers of their keys."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from configs.runtime.faults import InputFault
from configs.runtime.files import read_regular

_LARGEST_BYTES = 16 * 2**20
_MOST_LINES = 2000
_MOST_TABLES = 100_000


@dataclass(frozen=True)
class Document:
    """A TOML file.

    Args:
        path: the file.
        table: its content.
        text: its text, in which lines are found.
    """

    path: Path
    table: dict[str, Any]
    text: str

    def at(self, key: str) -> str:
        """Return `FILE:LINE` of a top-level key or table, or `FILE` where its line cannot be found."""
        number = _line_of(self.text, key)
        return f"{self.path}:{number}" if number else str(self.path)


def read_document(path: Path, where: str) -> Document:
    """Read a TOML file; a byte-order mark, as editors on Windows write it, is skipped.

    Args:
        path: the file.
        where: the flag that named it, for messages.

    Raises:
        InputFault: naming the flag when the file cannot be read, file and line when it is not TOML.
    """
    try:
        content = read_regular(path, _LARGEST_BYTES + 1)
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise InputFault(f"{where}: cannot read '{path}': {reason}") from None
    if len(content) > _LARGEST_BYTES:
        raise InputFault(f"{where}: '{path}' is larger than {_LARGEST_BYTES} bytes")
    tables = content.count(b"\n[")
    if tables > _MOST_TABLES:  # each takes 15 microseconds to parse
        raise InputFault(f"{where}: '{path}' has {tables:,} tables, more than {_MOST_TABLES:,}")
    try:
        text = content.decode("utf-8-sig")
        return Document(path, tomli.loads(text), text)
    except UnicodeDecodeError as failure:
        line = content[: failure.start].count(b"\n") + 1
        raise InputFault(f"{path}:{line}: not UTF-8") from None
    except tomli.TOMLDecodeError as failure:
        raise InputFault(f"{path}:{failure.lineno}: {failure.msg}, at column {failure.colno}") from None
    except (RecursionError, ValueError) as failure:
        raise InputFault(f"{path}: {failure}") from None


def _line_of(text: str, key: str) -> int | None:
    """Return the line on which a top-level key or table begins."""
    quoted = rf"[\"']?{re.escape(key)}[\"']?[ \t]*"
    found = list(re.finditer(rf"^[ \t]*(?:{quoted}[=.]|\[{{1,2}}[ \t]*{quoted}[\].])", text, re.MULTILINE))
    if len(found) == 1:
        return text.count("\n", 0, found[0].start()) + 1
    return _exact_line_of(text, key)


def _exact_line_of(text: str, key: str) -> int | None:
    """Return where a key begins: after the longest part from the top that is valid TOML without it."""
    lines = text.split("\n")
    if len(lines) > _MOST_LINES:
        return None
    before = 0
    for count in range(1, len(lines) + 1):
        try:
            table = tomli.loads("\n".join(lines[:count]))
        except (RecursionError, ValueError):
            continue
        if key in table:
            return before + 1
        before = count
    return None
