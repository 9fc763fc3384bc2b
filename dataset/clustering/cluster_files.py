"""Write the rows of each cluster to a file of its own, which `--dataset local` can read."""

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
_UNCLUSTERED = "unclustered"


class Lines(NamedTuple):
    """The rows of a file or data set, each as a line.

    Args:
        lines: the rows in stored order, without line ends.
        ending: extension of the files that they are written to.
        suffix: appended to the names of those files.
    """

    lines: Sequence[str]
    ending: str = _RECORDS
    suffix: str = ""


def lines_of_file(name: str, texts: Sequence[Text]) -> Lines:
    """Return the rows of a file as lines: running text unchanged, anything else as JSON.

    Args:
        name: the file.
        texts: its texts with their rows.

    Raises:
        InputFault: for a row that cannot be written as JSON.
    """
    if Path(name).suffix.lower() == f".{RUNNING}":
        return Lines([one.row["text"].removesuffix("\n") for one in texts], RUNNING)
    return Lines(_json_lines(name, [one.row for one in texts]))


def lines_of_set(part: Part, rows: TaskRows, fetch: Fetch | None) -> Lines:
    """Return the rows that the training examples of a data set were made from, as lines.

    Args:
        part: the data set.
        rows: its examples.
        fetch: how rows come from the hub; required where these did.

    Raises:
        InputFault: for a row that cannot be written as JSON.
    """
    stored = row_source(part.task, part.dataset_dir, fetch)("train")
    found = [stored.rows.rows[index].row for index in rows.splits["train"].row_indices]
    return Lines(_json_lines(stored.where, found), suffix=f"_{part.name}" if part.name else "")


def write_clusters(directory: Path, sources: Sequence[Lines], labels: Sequence[int | None]) -> dict[str, int]:
    """Write the lines of each cluster, source by source in stored order; all files appear at once.

    Args:
        directory: created; it must not exist.
        sources: the rows.
        labels: the cluster of every row, source by source; rows with None go to `unclustered`.

    Returns:
        File name -> number of its lines, in the order of the clusters.
    """
    rows = [(source, line) for source in sources for line in source.lines]
    files: dict[str, list[str]] = {}
    for label, (source, line) in sorted(zip(labels, rows, strict=True), key=lambda pair: _order(pair[0])):
        stem = _UNCLUSTERED if label is None else f"cluster_{label}"
        files.setdefault(f"{stem}{source.suffix}.{source.ending}", []).append(line)
    with replacing_directory(directory) as draft:
        for name, lines in files.items():
            write_text(draft / name, "".join(f"{line}\n" for line in lines))
    return {name: len(lines) for name, lines in files.items()}


def _order(label: int | None) -> float:
    return float("inf") if label is None else label


def _json_lines(where: str, rows: Sequence[Row]) -> list[str]:
    return [_json_line(where, number, row) for number, row in enumerate(rows, start=1)]


def _json_line(where: str, number: int, row: Row) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputFault(
            f"--write-parts: {where}: text {number} cannot be written as JSON: {error}"
        ) from None
    # An unpaired surrogate is valid JSON when escaped, but not valid UTF-8.
    return line if line.isascii() or _is_utf8(line) else json.dumps(row, allow_nan=False)


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
