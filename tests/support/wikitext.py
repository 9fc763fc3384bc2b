"""Rows of WikiText-2 for the tests of its forms."""

from pathlib import Path

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather
from dataset.task import Task

ROWS = [
    {"text": " = Foxes = \n"},
    {"text": ""},
    {"text": ""},
    {"text": ' A fox said " <unk> " and \u2028 left . \n'},
    {"text": " Then it slept . \n"},
]
RAW = "".join(row["text"] or " \n" for row in ROWS)
"""The rows as the published files hold them: a blank line is a space."""


def form_files(ending: str) -> dict[str, str]:
    """Return the three files of a form: name -> content."""
    return {f"wiki.{part}.{ending}": RAW for part in ("train", "valid", "test")}


def assert_reads_only(task: Task, own: str, other: str, folder: Path) -> None:
    """Assert that a form's files are read and those of the other form are not."""
    (folder / f"wiki.train.{other}").write_text("A fox left .\n")
    with pytest.raises(InputFault, match=f"wiki.train.{own}"):
        gather(task, NeededSplits(("train",)), folder)
    (folder / f"wiki.train.{own}").write_text("A fox left .\n")
    assert gather(task, NeededSplits(("train",)), folder).counts()["used"] == 1
