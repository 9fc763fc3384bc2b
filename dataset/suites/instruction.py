"""What the instruction data sets share: records of instruction, input and output as prompt and response.

A record may also state its type of task, which is used in reports only.

Source: Tian et al. 2024 (HydraLoRA), 2404.19245, released training code: the prompt is the instruction, a
line feed and the input where there is one, and the end-of-sequence token; the response is the output.
Differs: `[data] template` may give another prompt, with an end-of-sequence token only where it has `{eos}`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from configs.runtime.faults import InputFault
from configs.schema.number_values import Whole
from dataset.rows.fields import text_field, type_field
from dataset.rows.readers import read_by_ending
from dataset.suites.prompt_template import ends_with_eos, fill, placeholders, template_faults
from dataset.task import Example, Row, Selection, Split, Task

TEMPLATE = "{instruction}{?input:\n{input}}{eos}"
_PROMPT_FIELDS = ("instruction", "input")
_HOLDOUT = 0.1


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a record's fields; the last column may be missing."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    task_type: str = "task_type"


@dataclass(frozen=True)
class InstructionOptions:
    """The `[data]` table of an instruction data set."""

    template: str = TEMPLATE
    """The prompt, with the fields `{instruction}` and `{input}`."""
    validation_examples: Annotated[int, Whole(1)] | None = None
    """Number of training rows held out for validation; without it the last 10 %."""


def instruction_task(
    name: str,
    files: Sequence[str],
    hub: str,
    options: InstructionOptions,
    columns: Columns | None = None,
    select: Callable[[Row], bool] | None = None,
) -> Task:
    """Build the task of a data set that has a training split only.

    Args:
        name: the value of `--dataset`.
        files: official file names, tried in order.
        hub: the repository of the hub copy, whose split is `train`.
        options: template and number of validation rows.
        columns: names of the columns; the defaults of `Columns` when None.
        select: row -> whether it is used; None uses every row.

    Raises:
        InputFault: for every fault of the template.
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
    """Return a record's prompt and response; the input may be empty, null or missing.

    Raises:
        RowFault: when instruction or output is missing or empty, or a field is not a text; a type of task
            may also be a whole number.
    """
    has_input = row.get(columns.input) not in (None, "")
    record = {
        "instruction": text_field(row, columns.instruction),
        "input": text_field(row, columns.input) if has_input else "",
    }
    output = text_field(row, columns.output)
    with_eos, kind = ends_with_eos(template), type_field(row, columns.task_type)
    return Example((fill(template, record),), response=output, eos_after_prompt=with_eos, task_type=kind)


def prompt_faults(template: str) -> list[str]:
    """Return the faults of the template of an instruction data set."""
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
