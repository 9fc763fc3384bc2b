"""Gather the rows of a run's data sets, part by part, and lay them together."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from configs.runtime.faults import Findings, InputFault
from dataset.mixture.parts import Part, compose, located
from dataset.rows.gather import NeededSplits, gather, needed_splits
from dataset.rows.row_source import Fetch
from dataset.rows.task_rows import TaskRows
from dataset.suites.mmlu import Questions, with_questions


@dataclass(frozen=True)
class Request:
    """What a run needs of its data sets.

    Args:
        action: the word of the command line, or one more of `dataset.rows.gather.needed_splits`.
        predict: whether predictions for unlabelled splits are written.
        max_bad_rows: how many rows of all parts together may be refused.
        mmlu: the shots of MMLU in place of every evaluation set, a word of `--mmlu-mode`; None without.
    """

    action: str
    predict: bool
    max_bad_rows: int
    mmlu: str | None = None


def gather_parts(
    parts: Sequence[Part], request: Request, held: Mapping[str, TaskRows], fetch: Fetch | None = None
) -> dict[str, TaskRows]:
    """Return part -> its rows; without `fetch` the parts that stand on the hub are left out.

    Args:
        parts: the data sets.
        request: what is needed of them.
        held: parts that were gathered already.
        fetch: how rows come from the hub.

    Raises:
        InputFault: a line for every finding in all parts.
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
    # Nothing is scored by generation in a mixture, so that training needs no test set.
    is_bare = part.name or request.mmlu
    scored = dataclasses.replace(part.task, generation=None) if is_bare else part.task
    needed = needed_splits(scored, request.action, request.predict)
    if request.mmlu and request.action == "test":
        needed = NeededSplits(())
    try:
        return gather(part.task, needed, part.dataset_dir, max_bad_rows=max_bad_rows, fetch=fetch)
    except InputFault as refusal:
        raise InputFault(*(located(part.where, line) for line in refusal.lines)) from None


def join(
    parts: Sequence[Part],
    found: Mapping[str, TaskRows],
    mmlu: str | None = None,
    questions: Mapping[str, Questions] | None = None,
) -> TaskRows:
    """Return the rows of a run: those of its one data set, or of all parts, which split names then hold.

    Args:
        parts: the data sets.
        found: part -> its rows.
        mmlu: the shots of MMLU in place of every evaluation set.
        questions: its questions, if it is asked for.

    Raises:
        InputFault: when the parts, completed by their rows, do not go together.
    """
    task = compose(parts, [found[part.name].task for part in parts])
    if not parts[0].name:
        return found[""] if mmlu is None else with_questions(found[""], questions, mmlu)
    splits = {part.split(name): split for part in parts for name, split in found[part.name].splits.items()}
    names = {part.name: [part.split(name) for name in found[part.name].splits] for part in parts}
    tasks = {name: found[part].task for part, own in names.items() for name in own}
    rows = TaskRows(task, splits, names, tasks)
    return rows if mmlu is None else with_questions(rows, questions, mmlu)
