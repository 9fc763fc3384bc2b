"""CoLA: is the sentence acceptable English? Its train and dev files have no header, its test file has one."""

from pathlib import Path

from dataset.rows.readers import read_tsv_without_header
from dataset.suites.glue import GlueSet, glue_task
from dataset.task import NoOptions, Rows, Split, Task, TaskKind

_FACTS = GlueSet(
    name="cola",
    folder="CoLA",
    segments={"sentence": "sentence"},
    label_column="label",
    labels=("unacceptable", "acceptable"),
    file_labels=("0", "1"),
    metrics=("matthews", "accuracy", "macro_f1"),
)


def build(options: NoOptions) -> Task:
    """Build the task."""
    splits = {
        "train": Split(("train.tsv",), "train", _read),
        "validation": Split(("dev.tsv",), "validation", _read),
        "test": _FACTS.unlabelled("test.tsv", "test"),
    }
    return glue_task(_FACTS, splits)


def _read(path: Path) -> Rows:
    # Columns: source, label, the linguist's own mark, sentence.
    return read_tsv_without_header(path, {"sentence": 3, "label": 1}, width=4)


TASK = TaskKind(build)
