"""QQP's official training file has rows that were cut short."""

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather
from dataset.tasks.qqp import TASK

ROWS = [
    {"question1": "Who?", "question2": "Which one?", "label": 0},
    {"question1": "Is it so?", "question2": "Is it true?", "label": 1},
]
HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
LABELLED = f"{HEADER}0\t1\t2\tWho?\tWhich one?\t0\n1\t3\t4\tIs it so?\tIs it true?\t1\n"
FILES = {"train.tsv": LABELLED, "dev.tsv": LABELLED, "test.tsv": "id\tquestion1\tquestion2\n0\tA?\tB?\n"}


def test_short_rows_are_refused_and_counted(tmp_path):
    (tmp_path / "train.tsv").write_text(LABELLED + "2\t5\t6\tCut\n")
    task = TASK.build(TASK.options())
    with pytest.raises(InputFault, match=r"train.tsv:4: 4 fields instead of 6 \(1 of 3 rows\)"):
        gather(task, NeededSplits(("train",)), tmp_path)
    rows = gather(task, NeededSplits(("train",)), tmp_path, max_bad_rows=1)
    assert rows.counts() == {"read": 3, "used": 2, "refused": 1}
    assert rows.reasons() == ["train train.tsv:4: 4 fields instead of 6"]
