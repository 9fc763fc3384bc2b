"""What the GLUE tasks share: official file formats, hub copy, labels, rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataset.rows.fields import is_unlabelled, label_field, number_field, text_field
from dataset.rows.readers import read_tsv
from dataset.task import Example, Row, Rows, Selection, Split, Task

HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueSet:
    """The facts about one GLUE task.

    Args:
        name: configuration on the hub, and value of `--dataset`.
        folder: name of the official folder.
        segments: hub field name -> column of the official files, in order.
        label_column: column of the label in the official files.
        labels: class names in the order of their ids on the hub; empty for regression.
        file_labels: label in the files for each id.
        metrics: names of the metrics, the one that selects the best step first.
    """

    name: str
    folder: str
    segments: Mapping[str, str]
    label_column: str
    labels: tuple[str, ...]
    file_labels: tuple[str, ...]
    metrics: tuple[str, ...]

    def read(self, path: Path) -> Rows:
        """Read an official file with labels."""
        return read_tsv(path, {**self.segments, "label": self.label_column})

    def read_unlabelled(self, path: Path) -> Rows:
        """Read the official test file, which has no labels."""
        return read_tsv(path, self.segments)

    def split(self, file: str, hub: str) -> Split:
        """Return a labelled split."""
        return Split((file,), hub, self.read)

    def unlabelled(self, file: str, hub: str) -> Split:
        """Return a split for predictions only."""
        return Split((file,), hub, self.read_unlabelled, labelled=False)


def glue_task(facts: GlueSet, splits: Mapping[str, Split] | None = None) -> Task:
    """Build a GLUE task.

    Args:
        facts: the facts about it.
        splits: its splits; None for train.tsv, dev.tsv and test.tsv.
    """
    label = partial(_class, facts) if facts.labels else _score
    return Task(
        name=facts.name,
        objective="classification" if facts.labels else "regression",
        splits=splits or _splits(facts),
        example=partial(_example, tuple(facts.segments), label),
        metrics=facts.metrics,
        selection=Selection(facts.metrics[0], maximise=True),
        labels=facts.labels,
        hub=(HUB, facts.name),
        folder=facts.folder,
    )


def _splits(facts: GlueSet) -> dict[str, Split]:
    return {
        "train": facts.split("train.tsv", "train"),
        "validation": facts.split("dev.tsv", "validation"),
        "test": facts.unlabelled("test.tsv", "test"),
    }


def _example(segments: tuple[str, ...], label: Callable[[Row], int | float], row: Row) -> Example:
    texts = tuple(text_field(row, name) for name in segments)
    return Example(texts, label=None if is_unlabelled(row) else label(row))


def _class(facts: GlueSet, row: Row) -> int:
    return label_field(row, "label", facts.file_labels)


def _score(row: Row) -> float:
    return number_field(row, "label", 0, 5)
