"""Read plain texts: each line of running text, or the joined text fields of each row, is one text."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from configs.runtime import kinds
from configs.runtime.faults import Findings, InputFault, suggestion, unknown
from dataset.rows.readers import accept, read_by_ending, read_lines
from dataset.task import Refused, Row, Rows

RUNNING = "txt"
"""File extension of running text, whose rows are lines."""
ENDINGS = (*kinds.names(kinds.FORMATS), RUNNING)
"""File extensions that can be read."""


class Text(NamedTuple):
    """A text and the row it was made of; a line of running text is a row with the one field `text`."""

    text: str
    row: Row


def read_texts(
    paths: Sequence[Path], fields: Sequence[str] | None, max_bad_rows: int
) -> dict[str, list[Text]]:
    """Return file name -> its texts. Blank lines of a .txt are skipped; a row without any text is refused.

    Args:
        paths: the files.
        fields: which fields of a row are its text, joined by line feeds; None for all that hold text.
        max_bad_rows: rows of each file that may be refused.

    Raises:
        InputFault: one line for each file that cannot be read, has too many refused rows, or has no text.
    """
    findings = Findings()
    found = [findings.attempt(partial(_texts, path, fields, max_bad_rows)) for path in paths]
    findings.settle()
    is_alone = len({path.name for path in paths}) == len(paths)
    return {
        path.name if is_alone else str(path): texts for path, texts in zip(paths, found) if texts is not None
    }


def texts_of_rows(rows: Rows, fields: Sequence[str] | None) -> tuple[list[Text], Rows]:
    """Join the text fields of each row; a row without any text is refused.

    Args:
        rows: what a reader found in a file.
        fields: which fields of a row are its text, joined by line feeds; None for all that hold text.

    Returns:
        The texts in file order, and the rows they were made of, with the rows without text among the refused.
    """
    texts: list[Text] = []
    kept, refused = Rows(), list(rows.refused)
    for numbered in rows.rows:
        text = _joined(numbered.row, fields)
        if text:
            texts.append(Text(text, numbered.row))
            kept.rows.append(numbered)
        else:
            refused.append(Refused(numbered.line, "the requested fields hold no text"))
    kept.refused.extend(sorted(refused))
    return texts, kept


def _texts(path: Path, fields: Sequence[str] | None, max_bad_rows: int) -> list[Text]:
    ending = path.suffix.removeprefix(".").lower()
    if ending not in ENDINGS:
        raise InputFault(f"{path}: {unknown('format', ending, ENDINGS)}")
    if ending == RUNNING:
        rows = read_lines(path)
        texts = [Text(row["text"], row) for _, row in rows.rows if row["text"]]
    else:
        rows = read_by_ending(path)
        _require(path, rows, fields or ())
        texts, rows = texts_of_rows(rows, fields)
    accept(path, rows, max_bad_rows)
    if not texts:
        raise InputFault(f"{path}: holds no text")
    return texts


def _require(path: Path, rows: Rows, fields: Sequence[str]) -> None:
    """Refuse a field that no row has: that is a misspelt option, not a bad row."""
    there = list(dict.fromkeys(str(name) for _, row in rows.rows for name in row))
    faults = [
        f"--fields: {path}: no field '{one}'{suggestion(one, there)}" for one in fields if one not in there
    ]
    if rows.rows and faults:
        raise InputFault(*faults)


def _joined(row: Row, fields: Sequence[str] | None) -> str:
    values = (row.get(name) for name in (row if fields is None else fields))
    return "\n".join(value for value in values if isinstance(value, str) and value.strip())
