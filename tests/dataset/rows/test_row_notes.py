"""Rows that are refused, and rows that are both trained and evaluated on, are counted with the reason."""

from dataclasses import replace

from dataset.rows.row_notes import refusals, repeated_rows
from dataset.rows.task_rows import SplitRows, TaskRows
from dataset.task import Example, Refused
from dataset.tasks.mrpc import TASK as MRPC
from dataset.tasks.mrpc import NoOptions

TASK = MRPC.build(NoOptions())


def split(examples=(), refused=()):
    return SplitRows(list(examples), len(examples) + len(refused), list(refused), "a.jsonl", "")


def example(text, label=1):
    return Example((text, "b"), label=label)


def test_refused_rows_are_grouped_by_reason():
    refused = [Refused(2, "the line is empty"), Refused(4, "too long"), Refused(7, "the line is empty")]
    rows = TaskRows(TASK, {"train": split(refused=refused), "validation": split(refused=refused[1:2])})
    assert refusals(rows, {"train": 653, "validation": 0}, {"train": 128, "validation": 128}) == [
        "653 of train: no target is left within --max-token-len 128",
        "2 of train: the line is empty (first: a.jsonl:2)",
        "1 of train: too long (first: a.jsonl:4)",
        "1 of validation: too long (first: a.jsonl:4)",
    ]


def test_very_many_reasons_are_summed_up():
    refused = [Refused(line, f"reason {line}") for line in range(1, 9)]
    found = refusals(TaskRows(TASK, {"train": split(refused=refused)}), {}, {})
    assert len(found) == 6
    assert found[-1] == "3 for 3 other reasons"


def test_rows_that_are_trained_and_evaluated_on_are_counted():
    train = [example("x"), example("y"), example("z")]
    held = [example("x"), example("y", label=0), example("x"), example("w")]
    splits = {"train": split(train), "validation": split(held), "validation_more": split(held[1:2])}
    rows = TaskRows(TASK, splits)
    assert repeated_rows(rows) == ["2 of 4 rows of validation equal a training row in texts and target"]
    assert repeated_rows(TaskRows(replace(TASK, packed=True), splits)) == []


def test_rows_are_compared_over_the_parts_of_a_mixture():
    splits = {
        "train_a": split([example("x")]),
        "train_b": split([example("y")]),
        "validation_a": split([example("y")]),
        "test_b": split([example("x"), example("w")]),
    }
    tasks = dict.fromkeys(splits, TASK) | {"train_b": replace(TASK, packed=True)}
    rows = TaskRows(TASK, splits, {"a": ["train_a"], "b": ["train_b"]}, tasks)
    assert repeated_rows(rows) == ["1 of 2 rows of test_b equal a training row in texts and target"]


def test_rows_without_a_training_split_repeat_nothing():
    assert repeated_rows(TaskRows(TASK, {"test": split([example("x")])})) == []
