"""Arithmetic: one-step word problems generated from a seed, in the form of GSM8K; needs no file, no hub.

Three kinds of problems (gain, loss, equal groups) with two small operands, so that a small network learns
them in about a hundred steps.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from configs.schema.number_values import Whole
from dataset.rows.fields import text_field
from dataset.rows.readers import read_jsonl
from dataset.suites.number_answers import score_number
from dataset.task import Example, Generation, Row, Selection, Split, Task, TaskKind

_TEMPLATE = "Question: {question}\nAnswer:"
_NAMES = ("Tom", "Anna", "Sam", "Lucy", "Ben", "Mia", "Jack", "Emma", "Leo", "Sara", "Max", "Nina")
_THINGS = ("apples", "pens", "books", "coins", "cards", "shells", "stamps", "marbles", "cookies", "balloons")
_MOST = 20_000


@dataclass(frozen=True)
class ArithmeticOptions:
    """The `[data]` table of arithmetic."""

    seed: int = 0
    """Seed of the problems, independent of the run's seed."""
    train_examples: Annotated[int, Whole(1)] = 2000
    """Number of training problems."""
    validation_examples: Annotated[int, Whole(1)] = 100
    """Number of validation problems."""
    test_examples: Annotated[int, Whole(1)] = 200
    """Number of test problems, which are answered by generation."""


def build(options: ArithmeticOptions) -> Task:
    """Build the task.

    Raises:
        InputFault: when there are too many problems.
    """
    _check(options)
    return Task(
        name="arithmetic",
        objective="language_modeling",
        splits={name: Split((), None, read_jsonl) for name in ("train", "validation", "test")},
        example=_example,
        metrics=("loss", "perplexity"),
        selection=Selection("loss", maximise=False),
        generation=Generation(max_new_tokens=48, score=score_number),
        template=_TEMPLATE,
        make_rows=partial(_rows, options),
    )


def _check(options: ArithmeticOptions) -> None:
    total = options.train_examples + options.validation_examples + options.test_examples
    if total > _MOST:
        raise InputFault(f"data.train_examples: at most {_MOST} problems in total, got {total}")


def _rows(options: ArithmeticOptions, split: str) -> list[Row]:
    total = options.train_examples + options.validation_examples + options.test_examples
    problems = _problems(options.seed, total)
    train_end = options.train_examples
    validation_end = train_end + options.validation_examples
    parts = {
        "train": (0, train_end),
        "validation": (train_end, validation_end),
        "test": (validation_end, total),
    }
    begin, end = parts[split]
    return [{"question": question, "answer": answer} for question, answer in problems[begin:end]]


@cache
def _problems(seed: int, count: int) -> tuple[tuple[str, str], ...]:
    generator = random.Random(derive(seed, "arithmetic"))
    # Keyed by the question, so that no problem is in two splits.
    found: dict[str, str] = {}
    while len(found) < count:
        question, answer = generator.choice(_FAMILIES)(generator)
        found[question] = answer
    return tuple(found.items())


def _gain(generator: random.Random) -> tuple[str, str]:
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    first, second = generator.randint(2, 20), generator.randint(2, 20)
    question = f"{name} has {first} {thing} and buys {second} more. How many {thing} does {name} have?"
    return question, f"{first} + {second} = {first + second}\n#### {first + second}"


def _loss(generator: random.Random) -> tuple[str, str]:
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    rest, second = generator.randint(1, 15), generator.randint(2, 15)
    first = rest + second
    question = f"{name} has {first} {thing} and gives away {second}. How many {thing} are left?"
    return question, f"{first} - {second} = {rest}\n#### {rest}"


def _groups(generator: random.Random) -> tuple[str, str]:
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    first, second = generator.randint(2, 9), generator.randint(2, 9)
    question = f"{name} fills {first} bags with {second} {thing} each. How many {thing} are in the bags?"
    return question, f"{first} * {second} = {first * second}\n#### {first * second}"


def _example(row: Row) -> Example:
    question, answer = text_field(row, "question"), text_field(row, "answer")
    return Example(
        (_TEMPLATE.replace("{question}", question),),
        response=f" {answer}",
        gold=answer.rpartition("####")[2].strip(),
    )


_FAMILIES: tuple[Callable[[random.Random], tuple[str, str]], ...] = (_gain, _loss, _groups)
TASK = TaskKind(build, ArithmeticOptions, ("causal_language_modeling",))
