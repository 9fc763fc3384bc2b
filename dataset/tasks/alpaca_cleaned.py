"""Alpaca, cleaned: the same instructions with many faulty rows corrected."""

from dataset.suites.instruction import InstructionOptions, instruction_task
from dataset.task import Task, TaskKind

_FILES = ("alpaca_data_cleaned.json", "alpaca_data_cleaned.jsonl", "alpaca_data_cleaned.parquet")


def build(options: InstructionOptions) -> Task:
    """Build the task."""
    return instruction_task("alpaca_cleaned", _FILES, "yahma/alpaca-cleaned", options)


TASK = TaskKind(build, InstructionOptions, ("causal_language_modeling",))
