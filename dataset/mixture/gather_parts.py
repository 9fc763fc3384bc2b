"""Gather the examples of a run's data sets, part by part, and join them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from configs.runtime.faults import Findings, InputFault
from dataset.mixture.parts import Part, joint_task, with_entry
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.rows.row_source import Fetch
from dataset.rows.task_rows import TaskRows


@dataclass(frozen=True)
class Request:
    """What a run needs of its data sets.

    Args:
        action: the action of the command line, or another one that `needed_splits` knows.
        predict: whether predictions for unlabelled splits are written.
        max_bad_rows: how many rows of all parts together may be refused.
        mmlu: `--mmlu-mode`, where MMLU replaces every evaluation set; None otherwise.
    """

    action: str
    predict: bool
    max_bad_rows: int
    mmlu: str | None = None


def gather_parts(
    parts: Sequence[Part], request: Request, held: Mapping[str, TaskRows], fetch: Fetch | None = None
) -> dict[str, TaskRows]:
    """Return part -> its examples; without `fetch` parts on the hub are left out.

    Args:
        parts: the data sets.
        request: what is needed of them.
        held: the parts that were gathered before.
        fetch: how rows come from the hub.

    Raises:
        InputFault: one line for every finding in all parts.
    """
    found, findings = dict(held), Findings()
    for part in parts:
        if part.name in found or (part.is_remote and fetch is None):
            continue
        refused = sum(rows.counts()["refused"] for rows in found.values())
        rows = findings.attempt(partial(_gather, part, request, request.max_bad_rows - refused, fetch))
        if rows is not None:
            found[part.name] = rows
    findings.settle()
    return found


def _gather(part: Part, request: Request, max_bad_rows: int, fetch: Fetch | None) -> TaskRows:
    # Neither a mixture nor MMLU is scored by generation, so that training needs no test set.
    without_generation = part.name or request.mmlu
    task = dataclasses.replace(part.task, generation=None) if without_generation else part.task
    needed = needed_splits(task, request.action, request.predict)
    if request.mmlu and request.action == "test":
        needed = NeededSplits(())
    try:
        return gather(part.task, needed, part.dataset_dir, max_bad_rows=max_bad_rows, fetch=fetch)
    except InputFault as refusal:
        raise InputFault(*(with_entry(part.where, line) for line in refusal.lines)) from None


def join(parts: Sequence[Part], found: Mapping[str, TaskRows]) -> TaskRows:
    """Return the examples of a run: those of its single data set, or of all parts of a mixture.

    In a mixture the names of splits hold those of the parts (`Part.split`).

    Args:
        parts: the data sets.
        found: part -> its examples.

    Raises:
        InputFault: when the parts, completed by their rows, have different objectives or labels.
    """
    task = joint_task(parts, [found[part.name].task for part in parts])
    if not parts[0].name:
        return found[""]
    splits = {part.split(name): split for part in parts for name, split in found[part.name].splits.items()}
    names = {part.name: [part.split(name) for name in found[part.name].splits] for part in parts}
    tasks = {name: found[part].task for part, own in names.items() for name in own}
    return TaskRows(task, splits, names, tasks)
