"""Local: the user's own files, described in the table `[data]`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from configs.runtime import kinds
from configs.runtime.faults import InputFault, suggestion, unknown
from configs.schema.number_values import Whole
from dataset.rows.fields import class_field, number_field, printable, text_field, type_field, word_field
from dataset.rows.readers import read_by_ending
from dataset.suites.instruction import TEMPLATE, Columns, instruction_example, prompt_faults
from dataset.suites.prompt_template import ends_with_eos, fill, required_fields, template_faults
from dataset.suites.summarization import document_faults, score_summary, summary_example
from dataset.task import Example, Generation, Row, RowFault, Rows, Selection, Split, Task, TaskKind

_NEW_TOKENS = 128
Purpose = Literal["classification", "regression", "language_modeling", "summarization"]


@dataclass(frozen=True)
class LocalOptions:
    """The `[data]` table of `local`. A file's extension is its format: csv, tsv, json, jsonl, parquet."""

    train: str | None = None
    """Training file, relative to `--dataset-dir` or to the current directory."""
    validation: str | None = None
    """Validation file; without it the last 5 % of the training rows, shuffled with seed 42."""
    test: str | None = None
    """Test file with labels; without it `test` evaluates the validation rows."""
    objective: Literal["classification", "regression", "language_modeling"] | None = None
    """What is learned; without it `--task` and the options for language modelling and summaries decide."""
    task: Literal["classification", "causal_language_modeling", "summarization"] = "classification"
    """The value of `--task`, filled in by the program; `objective` and named columns override it."""
    text: str = "text"
    """Column of the text to classify."""
    text_pair: str | None = None
    """Column of a second text, for pairs."""
    label: str = "label"
    """Column of the label: class or number."""
    labels: tuple[str, ...] = ()
    """Class names in the order of their ids; by default those of the training file, sorted."""
    prompt: str | None = None
    """Column of the prompt for language modelling; `prompt` by default, unless there is a template."""
    response: str | None = None
    """Column of the text to learn after the prompt; by default `response`, with a form `output`."""
    template: str | None = None
    """The prompt with columns in braces, such as `Question: {question}`; replaces `prompt`."""
    form: Literal["instruction"] | None = None
    """instruction: rows of instruction, input (may be empty), output, with the prompt of instruction sets."""
    task_type: str | None = None
    """Column of a row's type of task, for reports; with a form `task_type` by default, if it exists."""
    document: str | None = None
    """Column of the text to summarise; `document` by default. The template must hold it."""
    summary: str | None = None
    """Column of the summary; `summary` by default."""
    max_new_tokens: Annotated[int, Whole(1)] | None = None
    """Longest generated summary in tokens, 128 by default; prompts leave as many tokens of `--max-token-len`
    free, at most half of it."""


def build(options: LocalOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: for every fault of the options.
    """
    _check(options)
    return _made(options)


def _made(options: LocalOptions) -> Task:
    makers = {"language_modeling": _language_task, "summarization": _summary_task}
    task = makers.get(_purpose(options), _labelled_task)(options)
    if options.task_type is None or options.form is not None:
        return task
    return replace(task, example=partial(_typed, task.example, options.task_type))


def _typed(read: Callable[[Row], Example], column: str, row: Row) -> Example:
    return replace(read(row), task_type=type_field(row, column))


def _check(options: LocalOptions) -> None:
    faults = []
    if options.train is None and options.validation is None and options.test is None:
        faults.append("data.train: --dataset local needs at least one file")
    for name, path in _files(options).items():
        ending = path.suffix.removeprefix(".").lower()
        if ending not in kinds.names(kinds.FORMATS):
            faults.append(f"data.{name}: {path}: {unknown('format', ending, kinds.names(kinds.FORMATS))}")
    if options.train is not None and options.train in (options.validation, options.test):
        faults.append(f"data.train: {options.train} is also an evaluation file")
    if len(set(options.labels)) != len(options.labels):
        faults.append("data.labels: a label appears twice")
    if options.labels and len(options.labels) < 2:
        faults.append("data.labels: must be at least 2, got 1")
    is_summary = _purpose(options) == "summarization"
    faults += _summary_faults(options) if is_summary else _prompt_faults(options)
    if faults:
        raise InputFault(*faults)


def _prompt_faults(options: LocalOptions) -> list[str]:
    if options.prompt is not None and (options.template or options.form) is not None:
        return ["data.prompt: cannot be combined with template or form"]
    if options.form is not None:
        wrong = options.objective not in (None, "language_modeling")
        return ["data.form: only for language modelling"] * wrong + prompt_faults(_template(options))
    if options.template is not None:
        return [f"data.template: {fault}" for fault in template_faults(options.template)]
    return []


def _summary_faults(options: LocalOptions) -> list[str]:
    others = {name: getattr(options, name) for name in ("objective", "prompt", "response", "form")}
    faults = [
        f"data.{name}: not for summarization, which has document, summary and template"
        for name, word in others.items()
        if word is not None
    ]
    return faults + document_faults(_template(options), options.document or "document")


def _purpose(options: LocalOptions) -> Purpose:
    named = (options.document, options.summary, options.max_new_tokens)
    if options.task == "summarization" or any(word is not None for word in named):
        return "summarization"
    if options.objective is not None:
        return options.objective
    of_language = (options.prompt, options.response, options.template, options.form)
    is_language = any(word is not None for word in of_language)
    is_asked = options.task == "causal_language_modeling"
    return "language_modeling" if is_language or is_asked else "classification"


def _files(options: LocalOptions) -> dict[str, Path]:
    named = {"train": options.train, "validation": options.validation, "test": options.test}
    return {name: Path(path) for name, path in named.items() if path is not None}


def _splits(options: LocalOptions) -> dict[str, Split]:
    return {
        name: Split((str(path),), None, partial(_read, options)) for name, path in _files(options).items()
    }


def _read(options: LocalOptions, path: Path) -> Rows:
    """Read a file by its extension; a column that no row has is a misspelt option, not a bad row."""
    rows = read_by_ending(path)
    first = [printable(str(name)) for name in rows.rows[0].row] if rows.rows else []
    faults = [
        f"{path}: no column '{column}', the first row has {', '.join(first)}{suggestion(column, first)}"
        for column in (*_columns(options), *([options.task_type] if options.task_type is not None else []))
        if rows.rows and not any(column in row for _, row in rows.rows)
    ]
    if faults:
        is_instruction = rows.rows and {"instruction", "output"} <= set(rows.rows[0].row)
        hint = '; `form = "instruction"` reads instruction, input, output'
        raise InputFault(*(fault + hint * bool(is_instruction and options.form is None) for fault in faults))
    return rows


def _columns(options: LocalOptions) -> list[str]:
    if _purpose(options) == "summarization":
        return [*required_fields(_template(options)), options.summary or "summary"]
    if options.form is not None:
        return ["instruction", _response(options)]
    if _purpose(options) == "language_modeling":
        return [*required_fields(_template(options)), _response(options)]
    pair = [] if options.text_pair is None else [options.text_pair]
    return [options.text, *pair, options.label]


def _template(options: LocalOptions) -> str:
    if options.template is not None:
        return options.template
    if _purpose(options) == "summarization":
        return f"Document: {{{options.document or 'document'}}}\nSummary:"
    return TEMPLATE if options.form is not None else f"{{{options.prompt or 'prompt'}}}"


def _response(options: LocalOptions) -> str:
    return options.response or ("response" if options.form is None else "output")


def _language_task(options: LocalOptions) -> Task:
    template, response = _template(options), _response(options)
    read = partial(_pair, template, response)
    if options.form is not None:
        columns = Columns(output=response, task_type=options.task_type or Columns.task_type)
        read = partial(instruction_example, template, columns)
    return Task(
        name="local",
        objective="language_modeling",
        splits=_splits(options),
        example=read,
        metrics=("loss", "perplexity"),
        selection=Selection("perplexity", maximise=False),
        template=template,
        action="causal_language_modeling",
    )


def _summary_task(options: LocalOptions) -> Task:
    template, document = _template(options), options.document or "document"
    return Task(
        name="local",
        objective="language_modeling",
        splits=_splits(options),
        example=partial(summary_example, template, document, options.summary or "summary"),
        metrics=("loss", "perplexity"),
        selection=Selection("loss", maximise=False),
        generation=Generation(options.max_new_tokens or _NEW_TOKENS, score_summary),
        template=template,
        action="summarization",
    )


def _labelled_task(options: LocalOptions) -> Task:
    is_regression = _purpose(options) == "regression"
    metrics: tuple[str, ...] = ("pearson", "spearman") if is_regression else ("accuracy", "macro_f1")
    if len(options.labels) == 2:
        metrics = ("accuracy", "f1", "macro_f1", "matthews")
    return Task(
        name="local",
        objective="regression" if is_regression else "classification",
        splits=_splits(options),
        example=partial(_labelled, options, is_regression),
        metrics=metrics,
        selection=Selection(metrics[0], maximise=True),
        labels=() if is_regression else options.labels,
        complete=None if is_regression or options.labels else partial(_complete, options),
    )


def _complete(options: LocalOptions, rows: list[Row]) -> Task:
    found, reasons = set(), []
    for row in rows:
        # A row without a label is refused later, by `_labelled`.
        try:
            found.add(word_field(row, options.label))
        except RowFault as fault:
            reasons.append(f": {fault}")
    if len(found) < 2:
        raise InputFault(
            f"{options.train}: column '{options.label}' must hold at least 2 labels, got {len(found)}"
            + "".join(reasons[:1])
        )
    is_numbered = all(word.isascii() and word.isdecimal() and len(word) < 19 for word in found)
    labels = sorted(found, key=lambda word: (int(word), word)) if is_numbered else sorted(found)
    return _made(replace(options, labels=tuple(labels)))


def _labelled(options: LocalOptions, is_regression: bool, row: Row) -> Example:
    texts = tuple(text_field(row, name) for name in _columns(options)[:-1])
    if is_regression:
        return Example(texts, label=number_field(row, options.label))
    return Example(texts, label=class_field(row, options.label, options.labels))


def _pair(template: str, response: str, row: Row) -> Example:
    return Example(
        (fill(template, row),), response=text_field(row, response), eos_after_prompt=ends_with_eos(template)
    )


TASK = TaskKind(
    build,
    LocalOptions,
    ("classification", "causal_language_modeling", "summarization"),
    paths=("train", "validation", "test"),
)
