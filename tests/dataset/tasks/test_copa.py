"""COPA becomes a pair: the premise with its question, and both choices."""

import json

import pytest

from dataset.task import RowFault
from dataset.tasks.copa import TASK

ROWS = [
    {
        "premise": "The glass fell.",
        "choice1": "It broke.",
        "choice2": "It flew.",
        "question": "effect",
        "idx": 0,
        "label": 0,
    },
    {
        "premise": "The glass broke.",
        "choice1": "It flew.",
        "choice2": "It fell.",
        "question": "cause",
        "idx": 1,
        "label": 1,
    },
]
LABELLED = "".join(json.dumps(row) + "\n" for row in ROWS)
BARE = "".join(json.dumps({k: v for k, v in row.items() if k != "label"}) + "\n" for row in ROWS)
FILES = {"train.jsonl": LABELLED, "val.jsonl": LABELLED, "test.jsonl": BARE}


def test_all_three_sentences_are_in_the_pair():
    example = TASK.build(TASK.options()).example
    assert example(ROWS[0]).texts == (
        "The glass fell. What happened as a result?",
        "1: It broke. 2: It flew.",
    )
    assert example(ROWS[1]).texts[0] == "The glass broke. What was the cause of this?"
    assert [example(row).label for row in ROWS] == [0, 1]


def test_only_cause_and_effect_questions_are_accepted():
    with pytest.raises(RowFault, match="field 'question' must be cause or effect, got 'why'"):
        TASK.build(TASK.options()).example({**ROWS[0], "question": "why"})
