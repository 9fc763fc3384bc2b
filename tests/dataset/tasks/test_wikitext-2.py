"""WikiText-2 is running text: blank lines are left out, lines keep their line feeds."""

import pyarrow
from pyarrow import parquet

from configs.runtime import kinds
from dataset.rows.gather import NeededSplits, gather, needed_splits
from tests.support.wikitext import RAW, ROWS, form_files

TASK = kinds.load(kinds.TASKS, "wikitext-2")
FILES = form_files("raw")


def test_blank_lines_are_not_selected(tmp_path):
    for name in ("wiki.train.raw", "wiki.train.tokens"):
        (tmp_path / name).write_text(RAW)
        rows = gather(TASK.build(TASK.options()), NeededSplits(("train",)), tmp_path)
        assert rows.counts() == {"read": 5, "used": 3, "refused": 0, "not_selected": 2}
        assert rows.splits["train"].source == name
        (tmp_path / name).unlink()


def test_parquet_holds_the_same_text(tmp_path):
    (tmp_path / "wikitext-2-raw-v1").mkdir()
    path = tmp_path / "wikitext-2-raw-v1" / "validation-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    (tmp_path / "wiki.train.raw").write_text(RAW)
    rows = gather(TASK.build(TASK.options()), NeededSplits(("train", "validation")), tmp_path)
    assert rows.splits["train"].examples == rows.splits["validation"].examples


def test_its_own_splits_are_used():
    task = TASK.build(TASK.options())
    assert needed_splits(task, "train").required == ("train", "validation")
    assert needed_splits(task, "test").required == ("test",)
