"""Arithmetic makes its own problems."""

import pytest

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from dataset.suites.number_answers import score_number
from dataset.tasks.arithmetic import TASK, ArithmeticOptions

ROWS = TASK.build(ArithmeticOptions()).make_rows("train")[:4]
FILES = {}


def test_splits_are_disjoint_and_of_the_requested_size():
    task = TASK.build(ArithmeticOptions(seed=3, train_examples=500, validation_examples=50, test_examples=70))
    questions = {name: [row["question"] for row in task.make_rows(name)] for name in task.splits}
    assert {name: len(held) for name, held in questions.items()} == {
        "train": 500,
        "validation": 50,
        "test": 70,
    }
    assert len({question for held in questions.values() for question in held}) == 620


def test_the_seed_alone_decides():
    first, again, other = (TASK.build(ArithmeticOptions(seed=seed)).make_rows("test") for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_answers_are_right():
    for row in TASK.build(ArithmeticOptions()).make_rows("test"):
        working, gold = row["answer"].split("\n#### ")
        left, result = working.split(" = ")
        first, operator, second = left.split()
        made = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}
        assert made[operator] == int(result) == int(gold)
        assert first in row["question"] and second in row["question"]
        assert score_number(row["answer"], gold) == {"exact_match": 1.0, "exact_match_flexible": 1.0}


@pytest.mark.parametrize("sizes", [{"train_examples": 0}, {"test_examples": -1}, {"train_examples": 10**9}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputFault, match=next(iter(sizes))):
        TASK.build(bind(ArithmeticOptions, sizes, "[data]"))


def test_the_largest_size_is_generated():
    task = TASK.build(ArithmeticOptions(train_examples=19_700))
    assert len(task.make_rows("train")) == 19_700
