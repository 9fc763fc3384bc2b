"""BoolQ writes its labels as truth values of JSON."""

import json

import pytest

from configs.runtime.faults import InputFault
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.tasks.boolq import TASK

ROWS = [
    {"question": "is a fox red", "passage": "Some are grey.", "idx": 0, "label": 0},
    {"question": "does a fox run", "passage": "Foxes run.", "idx": 1, "label": 1},
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


LABELLED = lines({**row, "label": row["label"] == 1} for row in ROWS)
BARE = lines({"question": row["question"], "passage": row["passage"], "idx": row["idx"]} for row in ROWS)
FILES = {"train.jsonl": LABELLED, "val.jsonl": LABELLED, "test.jsonl": BARE}


def test_question_comes_before_the_passage(tmp_path):
    example = TASK.build(TASK.options()).example(ROWS[0])
    assert (example.texts, example.label) == (("is a fox red", "Some are grey."), 0)


def test_a_label_that_is_no_truth_value_is_refused_and_named(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        lines([{**ROWS[0], "label": True}, {**ROWS[0], "label": "yes"}, {**ROWS[0], "label": [1]}])
    )
    with pytest.raises(InputFault) as caught:
        gather(TASK.build(TASK.options()), NeededSplits(("train",)), tmp_path)
    assert caught.value.lines == (
        f"{tmp_path / 'train.jsonl'}:2: label 'yes' in 1 of 3 rows, allowed false, true",
        f"{tmp_path / 'train.jsonl'}:3: label '[1]' in 1 of 3 rows, allowed false, true",
    )


def test_the_test_split_is_for_predictions_alone(tmp_path):
    task = TASK.build(TASK.options())
    assert needed_splits(task, "test").required == ("validation",)
    for row in ({**ROWS[0], "label": -1}, {**ROWS[0], "label": True}):  # as on the hub; with a stray label
        (tmp_path / "test.jsonl").write_text(lines([row]))
        rows = gather(task, NeededSplits(("test",)), tmp_path)
        assert [example.label for example in rows.splits["test"].examples] == [None]
    assert task.example({**ROWS[0], "label": -1}).label is None


def test_the_official_folder_is_found_in_its_parent(tmp_path):
    (tmp_path / "BoolQ").mkdir()
    (tmp_path / "BoolQ" / "train.jsonl").write_text(LABELLED)
    rows = gather(TASK.build(TASK.options()), NeededSplits(("train",)), tmp_path)
    assert rows.counts() == {"read": 2, "used": 2, "refused": 0}
