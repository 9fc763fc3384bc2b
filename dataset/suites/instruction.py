"""What instruction sets share: the record instruction, input, output and how it becomes prompt and response.

A record may also tell its type of task, which reports show and no loss sees.

Source: Tian et al. 2024 (HydraLoRA), 2404.19245, released training code: the prompt is the instruction, a
line feed and the input where there is one, and the end-of-sequence token; the response is the output.
Differs: `[data] template` may give another prompt, which then has no end token unless it asks for one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from configs.runtime.faults import InputFault
from configs.schema.number_values import Whole
from dataset.rows.fields import text_field, type_field
from dataset.rows.readers import read_by_ending
from dataset.suites.prompt_template import fill, is_closed, placeholders, template_faults
from dataset.task import Example, Row, Selection, Split, Task

TEMPLATE = "{instruction}{?input:\n{input}}{eos}"
_PROMPT_FIELDS = ("instruction", "input")
_HOLDOUT = 0.1


@dataclass(frozen=True)
class Columns:
    """Where the fields of a record stand in a row; the last may be missing."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    task_type: str = "task_type"


@dataclass(frozen=True)
class InstructionOptions:
    """The `[data]` table of an instruction set."""

    template: str = TEMPLATE
    """The prompt, of the fields `{instruction}` and `{input}`."""
    validation_examples: Annotated[int, Whole(1)] | None = None
    """Training rows held out for validation; without it the last 10 %."""


def instruction_task(
    name: str,
    files: Sequence[str],
    hub: str,
    options: InstructionOptions,
    columns: Columns | None = None,
    select: Callable[[Row], bool] | None = None,
) -> Task:
    """Build the task of a set that has training rows only.

    Args:
        name: the word of `--dataset`.
        files: official file names, tried in order.
        hub: the repository of the hub copy, whose split is `train`.
        options: template and holdout.
        columns: the names of the fields.
        select: which rows are asked for.

    Raises:
        InputFault: for every option that does not fit.
    """
    _check(options)
    return Task(
        name=name,
        objective="language_modeling",
        splits={"train": Split(tuple(files), "train", read_by_ending)},
        example=partial(instruction_example, options.template, columns or Columns()),
        metrics=("loss", "perplexity"),
        selection=Selection("perplexity", maximise=False),
        hub=(hub, None),
        template=options.template,
        holdout=options.validation_examples or _HOLDOUT,
        select=select,
    )


def instruction_example(template: str, columns: Columns, row: Row) -> Example:
    """Return a record's prompt and response; the input may be empty, null or left out.

    Raises:
        RowFault: when instruction or output is missing or empty, or a field is no text; a type of task may
            also be a whole number.
    """
    has_input = row.get(columns.input) not in (None, "")
    record = {
        "instruction": text_field(row, columns.instruction),
        "input": text_field(row, columns.input) if has_input else "",
    }
    output = text_field(row, columns.output)
    closed, kind = is_closed(template), type_field(row, columns.task_type)
    return Example((fill(template, record),), response=output, closed=closed, task_type=kind)


def prompt_faults(template: str) -> list[str]:
    """Say what does not fit in the template of an instruction set."""
    faults = [f"data.template: {fault}" for fault in template_faults(template)]
    strange = [name for name in placeholders(template) if name not in _PROMPT_FIELDS]
    faults += [f"data.template: no field '{name}', one of {', '.join(_PROMPT_FIELDS)}" for name in strange]
    if not faults and "instruction" not in placeholders(template):
        faults.append("data.template: must hold {instruction}")
    return faults


def _check(options: InstructionOptions) -> None:
    faults = prompt_faults(options.template)
    if faults:
        raise InputFault(*faults)
