"""The contract of a data set: facts and pure functions; no torch, no tokenizer, no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

CHOICES: Final = "choices"
"""Objective of multiple-choice questions; only evaluation sets have it."""
Objective = Literal["classification", "regression", "language_modeling", "choices"]
Row = Mapping[str, Any]
"""One record as its reader or the hub gives it: field name -> value."""


class RowFault(ValueError):
    """A row that cannot be used, with the reason as its message; raised by `Task.example`."""


class LabelFault(RowFault):
    """A label that is not allowed; messages count the rows of a file with the same label.

    Args:
        value: the label in the row.
        allowed: the labels that are allowed, in words.
    """

    def __init__(self, value: str, allowed: str) -> None:
        super().__init__(f"label '{value}' is not allowed, allowed are {allowed}")
        self.value = value
        self.allowed = allowed


class Numbered(NamedTuple):
    """A row and the line that it begins in, counted from 1; in parquet the number of the row."""

    line: int
    row: Row


class Refused(NamedTuple):
    """A line that gave no row, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows:
    """The rows of a file, and the lines that were refused; every line is in one of the two lists."""

    rows: list[Numbered] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Number of rows in the file, refused or not."""
        return len(self.rows) + len(self.refused)


@dataclass(frozen=True)
class Example:
    """One example as text.

    Args:
        texts: the input: one or two segments for classification and regression, the prompt for language
            modelling.
        label: class number or value; None for language modelling and rows without a label.
        response: the text to learn after the prompt; None for classification and regression.
        gold: the reference that a generated answer is compared with (`Generation.score`).
        eos_after_prompt: whether an end-of-sequence token follows the prompt.
        document_span: begin and end, in characters of the prompt, of its document: where the prompt is too
            long, the end of the document is truncated before anything else.
        task_type: type of task, where the row states one; used in reports only.
    """

    texts: tuple[str, ...]
    label: int | float | None = None
    response: str | None = None
    gold: str | None = None
    eos_after_prompt: bool = False
    document_span: tuple[int, int] | None = None
    task_type: str = ""


@dataclass(frozen=True)
class Split:
    """Where the rows of one split are, in the official files and on the hub.

    Args:
        files: official file names, tried in order, relative to the data set's folder.
        hub: name of the split on the hub; None when the hub lacks it.
        read: path -> rows; accounts for every line (`dataset.rows.readers`).
        labelled: False for a split without labels (test of GLUE), which is used for predictions only.
    """

    files: tuple[str, ...]
    hub: str | None
    read: Callable[[Path], Rows]
    labelled: bool = True


@dataclass(frozen=True)
class Selection:
    """The metric that selects the best step: its name in `val/<name>`, and its direction."""

    name: str
    maximise: bool


@dataclass(frozen=True)
class Generation:
    """How a task is scored by generated text.

    Args:
        max_new_tokens: longest answer in tokens.
        score: (generated text, gold) -> metric name -> score, 0 to 1; the mean over the test set is reported.
    """

    max_new_tokens: int
    score: Callable[[str, str], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """A data set bound to its options.

    Args:
        name: the value of `--dataset`.
        objective: the loss and the head that it needs.
        splits: `train`, `validation`, `test` and further evaluation sets named `validation_<suffix>`
            (MNLI: `validation_mismatched`). Without `validation` it is the last part of the training
            split shuffled with seed 42 (`holdout`).
        example: row -> its example; raises RowFault for a row that cannot be used.
        metrics: metrics of evaluation sets, by their names in `model.training.metrics`.
        selection: the metric that selects the best step.
        labels: class names in the order of their ids; empty unless classification.
        hub: (repository, configuration) of the hub copy; None when there is none.
        generation: set when the final score comes from generated answers on `test`.
        template: the prompt template, saved with the adapter; None for classification, regression and running
            text.
        make_rows: split name -> rows generated by the task (`arithmetic`), which then needs no file.
        folder: name of the official folder (GLUE: `SST-2`), looked for in `--dataset-dir`; with neither
            folder nor hub copy the user names the files.
        holdout: share (float) or number (int) of training rows held out where there is no `validation` split.
        complete: training rows -> the task with what is taken from them (`local`: the labels).
        select: row -> whether the options select it (dolly: its category); raises RowFault like `example`.
            The others are counted as not selected. None: every row is selected.
        packed: whether the responses are running text, learned in blocks without prompts.
        default_max_token_len: longest input in tokens where `--max-token-len` is not given.
        action: the value of `--task` that follows from the options (`local`); None: the first of its kind's
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
    default_max_token_len: int = 512
    action: str | None = None


@dataclass(frozen=True)
class NoOptions:
    """The `[data]` table of a data set without options."""


@dataclass(frozen=True)
class TaskKind:
    """What a module in `dataset/tasks/` exports as `TASK`.

    Args:
        build: bound options -> Task.
        options: the dataclass that the TOML table `[data]` is bound to.
        actions: values of `--task` that it can be used for; the first is the default.
        paths: keys of `[data]` whose values are file names.
        with_files: (bound options, the data set's directory) -> the options, completed by a file that is
            stored with the rows (`lora_flow`: system prompts); called before `build`, and raises InputFault.
    """

    build: Callable[[Any], Task]
    options: type = NoOptions
    actions: tuple[str, ...] = field(default=("classification",))
    paths: tuple[str, ...] = ()
    with_files: Callable[[Any, Path | None], Any] | None = None

    def recorded(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the record of an adapter keeps of a `[data]` table: the options, without file names."""
        known = {one.name for one in fields(self.options)} - set(self.paths)
        return {name: value for name, value in table.items() if name in known}
