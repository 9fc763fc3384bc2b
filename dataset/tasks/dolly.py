"""Dolly: 15,000 instructions written and answered by people, in eight categories.

Source: Conover et al. 2023, databricks-dolly-15k; context and response are the record's input and output,
the category is its type of task.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from configs.runtime.faults import InputFault, unknown
from configs.schema.number_values import Whole
from dataset.rows.fields import printable, text_field
from dataset.suites.instruction import TEMPLATE, Columns, InstructionOptions, instruction_task
from dataset.task import Row, RowFault, Task, TaskKind

CATEGORIES = (
    "brainstorming",
    "classification",
    "closed_qa",
    "creative_writing",
    "general_qa",
    "information_extraction",
    "open_qa",
    "summarization",
)
_FILES = ("databricks-dolly-15k.jsonl", "databricks-dolly-15k.parquet")


@dataclass(frozen=True)
class DollyOptions:
    """The `[data]` table of Dolly."""

    categories: tuple[str, ...] = CATEGORIES
    """Categories whose rows are used."""
    template: str = TEMPLATE
    """The prompt, with the fields `{instruction}` and `{input}` (the context)."""
    validation_examples: Annotated[int, Whole(1)] | None = None
    """Number of training rows held out for validation; without it the last 10 %."""


def build(options: DollyOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: when a category is unknown, appears twice, or none is given.
    """
    chosen = options.categories
    faults = [
        f"data.categories: {unknown('category', word, CATEGORIES)}"
        for word in chosen
        if word not in CATEGORIES
    ]
    if not chosen or len(set(chosen)) != len(chosen):
        faults.append(
            f"data.categories: {'a category appears twice' if chosen else 'must hold at least one'}"
        )
    if faults:
        raise InputFault(*faults)
    return instruction_task(
        "dolly",
        _FILES,
        "databricks/databricks-dolly-15k",
        InstructionOptions(options.template, options.validation_examples),
        Columns("instruction", "context", "response", "category"),
        select=partial(_is_chosen, chosen),
    )


def _is_chosen(chosen: tuple[str, ...], row: Row) -> bool:
    category = text_field(row, "category")
    if category not in CATEGORIES:
        raise RowFault(f"field 'category': {unknown('category', printable(category), CATEGORIES)}")
    return category in chosen


TASK = TaskKind(build, DollyOptions, ("causal_language_modeling",))
