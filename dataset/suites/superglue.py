"""What the SuperGLUE tasks share: official file formats, hub copy, labels, rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataset.rows.fields import is_unlabelled, label_field
from dataset.rows.readers import read_jsonl
from dataset.task import Example, Numbered, Row, Rows, Selection, Split, Task

HUB = "aps/super_glue"


@dataclass(frozen=True)
class SuperGlueSet:
    """The facts about one SuperGLUE task.

    Args:
        name: configuration on the hub, and value of `--dataset`.
        folder: name of the official folder.
        texts: row -> the two segments of the input.
        labels: class names in the order of their ids on the hub.
        file_labels: label in the files for each id: a word, a number or a Boolean of JSON.
        metrics: names of the metrics, the one that selects the best step first.
    """

    name: str
    folder: str
    texts: Callable[[Row], tuple[str, str]]
    labels: tuple[str, ...]
    file_labels: tuple[str | int | bool, ...]
    metrics: tuple[str, ...]


def superglue_task(facts: SuperGlueSet) -> Task:
    """Build a SuperGLUE task."""
    read = partial(_read, facts)
    return Task(
        name=facts.name,
        objective="classification",
        splits={
            "train": Split(("train.jsonl",), "train", read),
            "validation": Split(("val.jsonl",), "validation", read),
            "test": Split(("test.jsonl",), "test", _read_unlabelled, labelled=False),
        },
        example=partial(_example, facts),
        metrics=facts.metrics,
        selection=Selection(facts.metrics[0], maximise=True),
        labels=facts.labels,
        hub=(HUB, facts.name),
        folder=facts.folder,
    )


def _read(facts: SuperGlueSet, path: Path) -> Rows:
    """Replace each label by the name of its class; other values are kept, and refused later."""
    words = {(type(label), label): word for label, word in zip(facts.file_labels, facts.labels)}
    found = read_jsonl(path)
    for index, (line, row) in enumerate(found.rows):
        label = row.get("label")
        # Keyed by type too, because True == 1 in Python. Lists and objects cannot be keys.
        if isinstance(label, str | int | bool) and (type(label), label) in words:
            found.rows[index] = Numbered(line, {**row, "label": words[type(label), label]})
    return found


def _read_unlabelled(path: Path) -> Rows:
    found = read_jsonl(path)
    rows = [Numbered(line, {k: v for k, v in row.items() if k != "label"}) for line, row in found.rows]
    return Rows(rows, found.refused)


def _example(facts: SuperGlueSet, row: Row) -> Example:
    texts = facts.texts(row)
    return Example(texts, label=None if is_unlabelled(row) else label_field(row, "label", facts.labels))
