"""Alpaca: 52,000 instructions with answers of a language model.

Source: Taori et al. 2023, stanford_alpaca, `alpaca_data.json`.
Differs: the default prompt is that of `dataset.suites.instruction`; a few published rows have an empty output
and are refused, so `--max-bad-rows` must allow them.
"""

from dataset.suites.instruction import InstructionOptions, instruction_task
from dataset.task import Task, TaskKind

_FILES = (
    "alpaca_data.json",
    "alpaca_data.jsonl",
    "alpaca_data.parquet",
    "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
)


def build(options: InstructionOptions) -> Task:
    """Build the task."""
    return instruction_task("alpaca", _FILES, "tatsu-lab/alpaca", options)


TASK = TaskKind(build, InstructionOptions, ("causal_language_modeling",))
