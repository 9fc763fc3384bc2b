"""The contract of a data set: facts and pure functions; no torch, no tokenizer, no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Objective = Literal["classification", "regression", "language_modeling"]
Row = Mapping[str, Any]
"""One record as its reader or the hub gives it: field name to value."""


class RowFault(ValueError):
    """A row that cannot be used; the message is the reason. Raised by `Task.example`."""


@dataclass(frozen=True)
class Example:
    """One example as text.

    Args:
        texts: the input: one or two segments of a classification example, or the prompt of a language example.
        label: class number or regression value; None for language modelling and unlabelled rows.
        response: the text to be learned after the prompt; None for classification.
        gold: what a generated answer is compared with (`Generation.score`).
    """

    texts: tuple[str, ...]
    label: int | float | None = None
    response: str | None = None
    gold: str | None = None


@dataclass(frozen=True)
class Split:
    """Where one split's rows stand, in the official files and on the hub.

    Args:
        files: official file names, tried in order, relative to the set's folder.
        hub: split name on the hub; None when the hub lacks it.
        read: path -> rows, accounting for every line (`dataset.readers`).
    """

    files: tuple[str, ...]
    hub: str | None
    read: Callable[[Path], "Any"]


@dataclass(frozen=True)
class Selection:
    """The metric that chooses the best step: its name in `val/<name>` and its direction."""

    name: str
    maximise: bool


@dataclass(frozen=True)
class Generation:
    """How a task is scored by generated text.

    Args:
        max_new_tokens: cut-off of an answer.
        score: (generated text, gold) -> {metric name: 0.0 or 1.0}.
    """

    max_new_tokens: int
    score: Callable[[str, str], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """A data set bound to its options.

    Args:
        name: the word of `--dataset`.
        objective: which loss and head it needs.
        splits: `train`, `validation`, `test` and further evaluation sets named `validation_<suffix>`
            (MNLI: `validation_mismatched`). A set without `validation` takes the last 5 % of the training
            split shuffled with seed 42.
        example: row -> Example; raises RowFault for a row that cannot be used.
        metrics: names reported on evaluation sets, as `model.metrics` knows them.
        selection: the metric that chooses the best step.
        labels: class names in the order of their ids; empty unless classification.
        hub: (repository, configuration) of the hub copy; None when there is none.
        generation: set when the final score comes from generated answers on `test`.
        template: the prompt template, saved with the adapter; None for classification.
        rows: split name -> rows made by the project itself (`arithmetic`); then no file is needed.
        folder: the official folder's name inside a parent directory (GLUE: `SST-2`), tried by `--dataset-dir`.
    """

    name: str
    objective: Objective
    splits: Mapping[str, Split]
    example: Callable[[Row], Example]
    metrics: tuple[str, ...]
    selection: Selection
    labels: tuple[str, ...] = ()
    hub: tuple[str, str | None] | None = None
    generation: Generation | None = None
    template: str | None = None
    rows: Callable[[str], list[Row]] | None = None
    folder: str | None = None


@dataclass(frozen=True)
class NoOptions:
    """A data set without options of its own."""


@dataclass(frozen=True)
class TaskKind:
    """What a file in `dataset/tasks/` exports as `TASK`.

    Args:
        build: bound options -> Task.
        options: the dataclass that the TOML table `[data]` is bound to.
        actions: words of `--task` the set can serve; the first is its own.
    """

    build: Callable[[Any], Task]
    options: type = NoOptions
    actions: tuple[str, ...] = field(default=("classification",))
