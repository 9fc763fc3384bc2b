"""Write the rows of each cluster to a file of its own, which `--dataset local` reads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from configs.runtime.faults import InputFault
from configs.runtime.files import replacing_directory, write_text
from dataset.mixture.parts import Part
from dataset.rows.plain_texts import RUNNING, Text
from dataset.rows.row_source import Fetch, row_source
from dataset.rows.task_rows import TaskRows
from dataset.task import Row

_RECORDS = "jsonl"
_NOWHERE = "unclustered"


class Lines(NamedTuple):
    """The rows of a file or data set, each as a line.

    Args:
        lines: without line ends, in stored order.
        ending: of the files they go to.
        suffix: what is added to those files' names.
    """

    lines: Sequence[str]
    ending: str = _RECORDS
    suffix: str = ""


def lines_of_file(name: str, texts: Sequence[Text]) -> Lines:
    """Return the rows of a file as lines: running text as it is, anything else as JSON.

    Raises:
        InputFault: for a row that JSON has no form for.
    """
    if Path(name).suffix.lower() == f".{RUNNING}":
        return Lines([one.row["text"].removesuffix("\n") for one in texts], RUNNING)
    return Lines(_json_lines(name, [one.row for one in texts]))


def lines_of_set(part: Part, rows: TaskRows, fetch: Fetch | None) -> Lines:
    """Return the rows that the training examples of a data set were made of, as lines.

    Args:
        part: the data set.
        rows: its examples.
        fetch: how rows come from the hub; needed where these did.

    Raises:
        InputFault: for a row that JSON has no form for.
    """
    stored = row_source(part.task, part.dataset_dir, fetch)("train")
    found = [stored.rows.rows[index].row for index in rows.splits["train"].row_indices]
    return Lines(_json_lines(stored.where, found), suffix=f"_{part.name}" if part.name else "")


def write_clusters(directory: Path, sources: Sequence[Lines], labels: Sequence[int | None]) -> dict[str, int]:
    """Write each cluster's lines, source by source in stored order; all files appear together.

    Args:
        directory: is made.
        sources: the rows.
        labels: the cluster of every row, source by source; None goes to `unclustered`.

    Returns:
        File name -> its lines, in the clusters' order.
    """
    rows = [(source, line) for source in sources for line in source.lines]
    files: dict[str, list[str]] = {}
    for label, (source, line) in sorted(zip(labels, rows, strict=True), key=lambda pair: _place(pair[0])):
        stem = _NOWHERE if label is None else f"cluster_{label}"
        files.setdefault(f"{stem}{source.suffix}.{source.ending}", []).append(line)
    with replacing_directory(directory) as draft:
        for name, lines in files.items():
            write_text(draft / name, "".join(f"{line}\n" for line in lines))
    return {name: len(lines) for name, lines in files.items()}


def _place(label: int | None) -> float:
    return float("inf") if label is None else label


def _json_lines(where: str, rows: Sequence[Row]) -> list[str]:
    return [_json_line(where, number, row) for number, row in enumerate(rows, start=1)]


def _json_line(where: str, number: int, row: Row) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputFault(f"--write-parts: {where}: text {number} has no form in JSON: {error}") from None
    # Half a surrogate pair is valid JSON as an escape, and no UTF-8.
    return line if line.isascii() or _is_utf8(line) else json.dumps(row)


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
