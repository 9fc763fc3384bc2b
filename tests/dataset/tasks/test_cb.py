"""CB writes its labels as words, in the hub's order of ids."""

import json

from dataset.tasks.cb import TASK

WORDS = ("entailment", "contradiction", "neutral")
ROWS = [
    {"premise": "He said that it rained.", "hypothesis": text, "idx": label, "label": label}
    for label, text in enumerate(("It rained.", "It was dry.", "He was wet."))
]
LABELLED = "".join(json.dumps({**row, "label": WORDS[row["label"]]}) + "\n" for row in ROWS)
BARE = "".join(json.dumps({k: v for k, v in row.items() if k != "label"}) + "\n" for row in ROWS)
FILES = {"train.jsonl": LABELLED, "val.jsonl": LABELLED, "test.jsonl": BARE}


def test_ids_and_metrics():
    task = TASK.build(TASK.options())
    assert task.labels == WORDS
    assert task.metrics == ("accuracy", "macro_f1")
    assert task.selection.name == "accuracy"
