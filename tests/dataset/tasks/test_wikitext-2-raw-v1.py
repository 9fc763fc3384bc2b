"""wikitext-2-raw-v1: only the files of this form are read, as perplexities of two forms differ."""

import pytest

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather

TASK = kinds.load(kinds.TASKS, "wikitext-2-raw-v1")
ROWS = [
    {"text": " = Foxes = \n"},
    {"text": ""},
    {"text": " A fox said nothing . \n"},
    {"text": " Then it slept . \n"},
]
RAW = "".join(row["text"] or " \n" for row in ROWS)
FILES = {f"wiki.{part}.raw": RAW for part in ("train", "valid", "test")}


def test_only_files_of_its_form_are_read(tmp_path):
    task = TASK.build(TASK.options())
    assert task.hub == ("Salesforce/wikitext", "wikitext-2-raw-v1")
    (tmp_path / "wiki.train.tokens").write_text("A fox left .\n")
    with pytest.raises(InputFault, match="wiki.train.raw"):
        gather(task, NeededSplits(("train",)), tmp_path)
    (tmp_path / "wiki.train.raw").write_text("A fox left .\n")
    assert gather(task, NeededSplits(("train",)), tmp_path).counts()["used"] == 1
