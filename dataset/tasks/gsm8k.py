"""GSM8K: grade-school word problems with worked answers that end in `#### n`.

The response begins with a space, so that prompt and response, tokenised separately, give the same tokens as
the whole text.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from configs.runtime.faults import InputFault
from configs.schema.number_values import Whole
from dataset.rows.fields import text_field
from dataset.rows.readers import read_jsonl
from dataset.suites.number_answers import parse_number, score_number
from dataset.suites.prompt_template import ends_with_eos, fill, placeholders
from dataset.task import Example, Generation, Row, RowFault, Selection, Split, Task, TaskKind

_MARKS = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Gsm8kOptions:
    """The `[data]` table of GSM8K."""

    template: str = "Question: {question}\nAnswer:"
    """The prompt; `{question}` is the problem's text."""
    calculator_marks: bool = True
    """Keep the calculator marks `<<48/2=24>>` in the answers; without them these are a third shorter."""
    validation_examples: Annotated[int, Whole(1)] | None = None
    """Number of training rows held out for validation; without it the last 5 %."""


def build(options: Gsm8kOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: when the template does not hold `{question}` once, or holds another field.
    """
    if placeholders(options.template) != ["question"]:
        raise InputFault("data.template: must hold {question} once and no other field")
    return Task(
        name="gsm8k",
        objective="language_modeling",
        splits={"train": _split("train.jsonl", "train"), "test": _split("test.jsonl", "test")},
        example=partial(_example, options),
        metrics=("loss", "perplexity"),
        selection=Selection("loss", maximise=False),
        hub=("openai/gsm8k", "main"),
        generation=Generation(max_new_tokens=256, score=score_number),
        template=options.template,
        folder="gsm8k",
        holdout=options.validation_examples or 0.05,
    )


def _split(file: str, hub: str) -> Split:
    return Split((file,), hub, read_jsonl)


def _example(options: Gsm8kOptions, row: Row) -> Example:
    answer = text_field(row, "answer")
    gold = answer.rpartition("####")[2].strip() if "####" in answer else ""
    if parse_number(gold) is None:
        raise RowFault("field 'answer' has no number after '####'")
    if not options.calculator_marks:
        answer = _MARKS.sub("", answer)
    with_eos = ends_with_eos(options.template)
    return Example(
        (fill(options.template, row),), response=f" {answer}", gold=gold, eos_after_prompt=with_eos
    )


TASK = TaskKind(build, Gsm8kOptions, ("causal_language_modeling",))
