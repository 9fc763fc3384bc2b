"""Labels of the files become words by value and type; everything else stays for the row check."""

import json

from dataset.tasks.boolq import TASK as BOOLQ
from dataset.tasks.copa import TASK as COPA


def labels(kind, folder, values):
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"label": value}) + "\n" for value in values))
    rows = kind.build(kind.options()).splits["train"].read(path)
    return [row["label"] for _, row in rows.rows]


def test_a_boolean_is_not_a_number(tmp_path):
    assert labels(BOOLQ, tmp_path, [False, True, None, {}]) == ["false", "true", None, {}]
    assert labels(COPA, tmp_path, [0, 1, True, 1.0, "x"]) == ["choice1", "choice2", True, 1.0, "x"]
