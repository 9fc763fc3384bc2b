"""The contract of a data set: facts and pure functions; no torch, no tokenizer, no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

CHOICES: Final = "choices"
"""The objective of questions whose answer is a letter; evaluation sets alone have it."""
Objective = Literal["classification", "regression", "language_modeling", "choices"]
Row = Mapping[str, Any]
"""One record as its reader or the hub gives it: field name to value."""


class RowFault(ValueError):
    """A row that cannot be used; the message is the reason. Raised by `Task.example`."""


class LabelFault(RowFault):
    """A label outside the set; counted by value over the file.

    Args:
        value: the label as it stands in the row.
        allowed: what may stand there, in words.
    """

    def __init__(self, value: str, allowed: str) -> None:
        super().__init__(f"label '{value}' is not allowed, allowed are {allowed}")
        self.value = value
        self.allowed = allowed


class Numbered(NamedTuple):
    """A row and the line it begins in, counted from 1 (parquet: the row's number)."""

    line: int
    row: Row


class Refused(NamedTuple):
    """A line that gave no row, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows:
    """What a reader made of a file: every line is in one of the two lists."""

    rows: list[Numbered] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Rows the file holds, used or not."""
        return len(self.rows) + len(self.refused)


@dataclass(frozen=True)
class Example:
    """One example as text.

    Args:
        texts: the input: one or two segments of a classification example, or the prompt of a language one.
        label: class number or regression value; None for language modelling and unlabelled rows.
        response: the text to be learned after the prompt; None for classification.
        gold: what a generated answer is compared with (`Generation.score`).
        closed: whether the end-of-sequence token stands between prompt and response.
        document: begin and end, in characters of the prompt, of the part that gives way where the prompt is
            too long: it loses tokens from its end, before anything else does.
        task_type: what sort of task it is, where the row says so; told in reports, unused by the loss.
    """

    texts: tuple[str, ...]
    label: int | float | None = None
    response: str | None = None
    gold: str | None = None
    closed: bool = False
    document: tuple[int, int] | None = None
    task_type: str = ""


@dataclass(frozen=True)
class Split:
    """Where one split's rows stand, in the official files and on the hub.

    Args:
        files: official file names, tried in order, relative to the set's folder.
        hub: split name on the hub; None when the hub lacks it.
        read: path -> rows, accounting for every line (`dataset.rows.readers`).
        labelled: False for a split without gold labels (GLUE's test): predictions only.
    """

    files: tuple[str, ...]
    hub: str | None
    read: Callable[[Path], Rows]
    labelled: bool = True


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
        score: (generated text, gold) -> {metric name: 0.0 to 1.0}; the mean over the test set is reported.
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
            (MNLI: `validation_mismatched`). A set without `validation` takes the last part of the training
            split shuffled with seed 42 (`holdout`).
        example: row -> Example; raises RowFault for a row that cannot be used.
        metrics: names reported on evaluation sets, as `model.training.metrics` knows them.
        selection: the metric that chooses the best step.
        labels: class names in the order of their ids; empty unless classification.
        hub: (repository, configuration) of the hub copy; None when there is none.
        generation: set when the final score comes from generated answers on `test`.
        template: the prompt template, saved with the adapter; None for classification and running text.
        make_rows: split name -> rows made by the project itself (`arithmetic`); then no file is needed.
        folder: the official folder's name in its parent directory (GLUE: `SST-2`), tried in `--dataset-dir`.
        holdout: share (float) or number (int) of training rows held out where there is no `validation`.
        complete: training rows -> the task with what only they tell (`local`: its labels).
        select: row -> whether it is asked for (dolly: its category); raises RowFault like `example`. The
            others are counted as not selected. None: every row is.
        packed: the responses are one running text, learned in blocks of the longest length without prompts.
        length: longest input in tokens where `--max-token-len` is not given.
        action: the word of `--task` where the options tell it (`local`); None: the first of its kind's
            `actions`.
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
    make_rows: Callable[[str], list[Row]] | None = None
    folder: str | None = None
    holdout: float | int = 0.05
    complete: Callable[[list[Row]], "Task"] | None = None
    select: Callable[[Row], bool] | None = None
    packed: bool = False
    length: int = 512
    action: str | None = None


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
        paths: keys of `[data]` that name files.
    """

    build: Callable[[Any], Task]
    options: type = NoOptions
    actions: tuple[str, ...] = field(default=("classification",))
    paths: tuple[str, ...] = ()

    def recorded(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an adapter's record keeps of a `[data]` table: its own keys, but for files."""
        known = {one.name for one in fields(self.options)} - set(self.paths)
        return {name: value for name, value in table.items() if name in known}
