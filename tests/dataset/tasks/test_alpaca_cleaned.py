"""The cleaned Alpaca has its own file name and is otherwise Alpaca."""

import json

from dataset.tasks.alpaca_cleaned import TASK

ROWS = [
    {"instruction": f"Halve {2 * n}.", "input": "" if n % 2 else "Be brief.", "output": str(n)}
    for n in range(2, 22)
]
OPTIONAL = ("input",)
FILES = {"alpaca_data_cleaned.json": json.dumps(ROWS)}


def test_facts():
    task = TASK.build(TASK.options())
    assert task.hub == ("yahma/alpaca-cleaned", None)
    assert (task.selection.name, task.selection.maximise, task.holdout) == ("perplexity", False, 0.1)
