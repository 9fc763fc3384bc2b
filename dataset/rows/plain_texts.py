"""Read plain texts: a line of running text, or the text fields of a row, is one of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.runtime import kinds
from configs.runtime.faults import Findings, InputFault, suggestion, unknown
from dataset.rows.readers import accept, read_by_ending, read_lines
from dataset.task import Refused, Row, Rows

RUNNING = "txt"
"""The ending of running text, whose rows are lines."""
ENDINGS = (*kinds.names(kinds.FORMATS), RUNNING)
"""Endings of files that can be read."""


class Text(NamedTuple):
    """A text and the row it is of; of running text the row is a line, in its field `text`."""

    text: str
    row: Row


def read_texts(
    paths: Sequence[Path], fields: Sequence[str] | None, max_bad_rows: int
) -> dict[str, list[Text]]:
    """Return file name -> its texts. Blank lines of a .txt are left out; a row without any text is refused.

    Args:
        paths: the files.
        fields: which fields of a row are its text, joined by line feeds; None for all that hold text.
        max_bad_rows: rows of each file that may be refused.

    Raises:
        InputFault: with the faults of all files, a line each.
    """
    findings = Findings()
    found = [findings.attempt(partial(_texts, path, fields, max_bad_rows)) for path in paths]
    findings.settle()
    is_alone = len({path.name for path in paths}) == len(paths)
    return {path.name if is_alone else str(path): texts for path, texts in zip(paths, found)}


def _texts(path: Path, fields: Sequence[str] | None, max_bad_rows: int) -> list[Text]:
    ending = path.suffix.removeprefix(".").lower()
    if ending not in ENDINGS:
        raise InputFault(f"{path}: {unknown('format', ending, ENDINGS)}")
    rows = read_lines(path) if ending == RUNNING else read_by_ending(path)
    if ending == RUNNING:
        texts = [Text(row["text"], row) for _, row in rows.rows if row["text"]]
    else:
        _require(path, rows, fields or ())
        joined = [(line, Text(_joined(row, fields), row)) for line, row in rows.rows]
        texts = [one for _, one in joined if one.text]
        empty = [
            Refused(line, "holds no text in the fields asked for") for line, one in joined if not one.text
        ]
        rows = Rows(rows.rows[: len(texts)], sorted([*rows.refused, *empty]))
    accept(path, rows, max_bad_rows)
    if not texts:
        raise InputFault(f"{path}: holds no text")
    return texts


def _require(path: Path, rows: Rows, fields: Sequence[str]) -> None:
    """Refuse a field that no row has: it is a misspelt word, not a bad row."""
    there = list(dict.fromkeys(str(name) for _, row in rows.rows for name in row))
    faults = [
        f"--fields: {path}: no field '{one}'{suggestion(one, there)}" for one in fields if one not in there
    ]
    if rows.rows and faults:
        raise InputFault(*faults)


def _joined(row: Row, fields: Sequence[str] | None) -> str:
    values = (row.get(name) for name in (row if fields is None else fields))
    return "\n".join(value for value in values if isinstance(value, str) and value.strip())
