"""Make a task's examples from the rows of its files, the hub or the task itself.

Every row is used, refused with a reason, or left out by an option of the task and counted. Needs no torch:
bad files are refused before the heavy libraries are imported.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.runtime.faults import InputFault
from dataset.rows.readers import refusal
from dataset.rows.row_source import Fetch, MissingSplit, RowSource, SourceRows, row_source
from dataset.rows.task_rows import SplitRows, TaskRows
from dataset.task import Example, LabelFault, Refused, RowFault, Rows, Task

_HOLDOUT_SEED = 42
_MOST_LABELS = 8


@dataclass(frozen=True)
class NeededSplits:
    """The splits that an action uses.

    Args:
        required: a missing one is an error.
        optional: a missing one is left out.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class _SplitExamples:
    """The examples of one split while rows are still accounted for.

    Args:
        source: the rows they were made from.
        examples: in file order.
        row_indices: index of each example's row in `source.rows.rows`.
        refused: lines that gave no example.
        wrong_labels: (label, what is allowed) -> lines that have it; these are among `refused` too.
        unselected: lines that the task's options leave out.
    """

    source: SourceRows
    examples: list[Example] = field(default_factory=list)
    row_indices: list[int] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    wrong_labels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    unselected: list[int] = field(default_factory=list)


def needed_splits(task: Task, action: str, predict: bool = False) -> NeededSplits:
    """Return the splits that an action uses.

    Args:
        task: the data set.
        action: `train`, `test`, `imp-test` or `train-dyrealloc`; `validation` for the validation sets only.
        predict: whether predictions for unlabelled splits are written.
    """
    unlabelled = tuple(name for name, split in task.splits.items() if not split.labelled) if predict else ()
    evaluation = ("validation", *(name for name in task.splits if name.startswith("validation_")))
    has_test = "test" in task.splits and task.splits["test"].labelled
    if action == "imp-test":  # reads the validation set too: its held-out rows must not be training rows
        return NeededSplits(("train", *evaluation))
    if action == "validation":
        return NeededSplits(evaluation)
    if action == "test":
        return NeededSplits(("test", *unlabelled) if has_test else (*evaluation, *unlabelled))
    return NeededSplits(
        ("train", *evaluation, *unlabelled), ("test",) if has_test and task.generation else ()
    )


def gather(
    task: Task,
    needed: NeededSplits,
    dataset_dir: Path | None,
    *,
    max_bad_rows: int = 0,
    fetch: Fetch | None = None,
) -> TaskRows:
    """Read the splits that an action needs and make examples of their rows.

    Args:
        task: the data set.
        needed: the splits (`needed_splits`).
        dataset_dir: the data set's directory or its parent; None takes the rows from the task or `fetch`.
        max_bad_rows: how many rows of all splits together may be refused.
        fetch: how rows come from the hub; None where the hub may not be used.

    Raises:
        InputFault: when a file is missing, or more rows are refused than allowed; one line for each finding.
    """
    source = row_source(task, dataset_dir, fetch)
    found = _read_splits(task, needed, source)
    if task.complete is not None:
        train = found.get("train") or _label_source(task, source)
        task = task.complete([row for _, row in train.rows.rows])
    made = {name: _examples(task, name, rows) for name, rows in found.items()}
    _check(made.values(), max_bad_rows)
    splits = {name: _split_rows(split, range(len(split.examples))) for name, split in made.items()}
    if "validation" in needed.required and "validation" not in task.splits:
        splits |= _held_out(task, made["train"])
    return TaskRows(task, splits)


def _read_splits(task: Task, needed: NeededSplits, source: RowSource) -> dict[str, SourceRows]:
    """Read every needed split; for `validation` read `train` where the data set has no validation split."""
    found: dict[str, SourceRows] = {}
    for name in (*needed.required, *needed.optional):
        stored = "train" if name == "validation" and name not in task.splits else name
        if stored in found:
            continue
        if stored not in task.splits:
            raise InputFault(f"data.{stored}: '{name}' of {task.name} is needed, but no file is given")
        try:
            rows = source(stored)
        except MissingSplit as missing:
            if name in needed.required:
                raise InputFault(str(missing)) from None
            continue
        found[stored] = rows
    return found


def _label_source(task: Task, source: RowSource) -> SourceRows:
    """Read the training rows of an action that does not train, because the labels come from them."""
    if "train" not in task.splits:
        raise InputFault("data.labels: required, there is no training file to take the labels from")
    try:
        return source("train")
    except MissingSplit as missing:
        raise InputFault(
            f"data.labels: required, there is no training file to take the labels from; {missing}"
        ) from None


def _examples(task: Task, name: str, source: SourceRows) -> _SplitExamples:
    made = _SplitExamples(source, refused=list(source.rows.refused))
    is_labelled = task.splits[name].labelled
    for index, (line, row) in enumerate(source.rows.rows):
        try:
            if task.select is not None and not task.select(row):
                made.unselected.append(line)
                continue
            example = task.example(row)
            if is_labelled and example.label is None and example.response is None:
                raise RowFault("the label is missing")
            made.examples.append(example)
            made.row_indices.append(index)
        except LabelFault as fault:
            made.wrong_labels.setdefault((fault.value, fault.allowed), []).append(line)
            made.refused.append(Refused(line, str(fault)))
        except RowFault as fault:
            made.refused.append(Refused(line, str(fault)))
    made.refused.sort()
    return made


def _check(splits: Iterable[_SplitExamples], max_bad_rows: int) -> None:
    """Refuse splits with too many refused rows in total, or without any example."""
    splits = list(splits)
    lines: list[str] = []
    if sum(len(split.refused) for split in splits) > max_bad_rows:
        lines = [line for split in splits for line in _findings(split)]
    lines += [
        f"{split.source.where}: no row {'is selected' if split.unselected else 'can be used'}"
        for split in splits
        if not split.examples and not lines
    ]
    if lines:
        raise InputFault(*lines)


def _findings(split: _SplitExamples) -> list[str]:
    where, total = split.source.where, split.source.rows.read
    of_labels = {line for lines in split.wrong_labels.values() for line in lines}
    malformed = [refused for refused in split.refused if refused.line not in of_labels]
    lines = [refusal(where, malformed, total)] if malformed else []
    for (value, allowed), rows in list(split.wrong_labels.items())[:_MOST_LABELS]:
        lines.append(f"{where}:{rows[0]}: label '{value}' in {len(rows)} of {total} rows, allowed {allowed}")
    if len(split.wrong_labels) > _MOST_LABELS:
        lines.append(f"{where}: {len(split.wrong_labels) - _MOST_LABELS} more labels are not allowed")
    return lines


def _held_out(task: Task, split: _SplitExamples) -> dict[str, SplitRows]:
    """Split off the last part of the shuffled training rows; both parts keep the file's order."""
    total = len(split.examples)
    count = task.holdout if isinstance(task.holdout, int) else max(1, int(total * task.holdout))
    where = split.source.where
    if count >= total:
        raise InputFault(f"{where}: {total} rows are too few to hold out {count} for validation")
    order = list(range(total))
    random.Random(_HOLDOUT_SEED).shuffle(order)
    held = set(order[total - count :])
    train = [index for index in range(total) if index not in held]
    # The refused and unselected rows are counted once, with the training rows.
    without_refused = _SplitExamples(
        SourceRows(where, split.source.source, Rows()), split.examples, split.row_indices
    )
    return {"train": _split_rows(split, train), "validation": _split_rows(without_refused, sorted(held))}


def _split_rows(split: _SplitExamples, chosen: Sequence[int]) -> SplitRows:
    examples = [split.examples[index] for index in chosen]
    return SplitRows(
        examples=examples,
        read=len(examples) + len(split.refused) + len(split.unselected),
        refused=split.refused,
        source=split.source.source,
        digest=_digest(examples),
        unselected=len(split.unselected),
        row_indices=[split.row_indices[index] for index in chosen],
    )


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        fields: list[object] = [example.texts, example.label, example.response, example.gold]
        fields += [True] if example.eos_after_prompt else []
        fields += [example.task_type] if example.task_type else []
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
