"""Gather a task's examples from files, the hub or its own making; each row is used or refused with a reason.

Needs no torch: bad files are refused before the heavy libraries are imported.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from dataset.rows.readers import refusal
from dataset.rows.row_source import Fetch, Found, Missing, source_of
from dataset.task import Example, LabelFault, Refused, RowFault, Rows, Task

_HOLDOUT_SEED = 42
_MOST_LABELS = 8


@dataclass(frozen=True)
class Wanted:
    """The splits an action uses; a missing optional one is left out."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitRows:
    """One split, ready to be encoded.

    Args:
        examples: what is used, in the file's order.
        read: rows read; equals used plus refused plus not selected.
        refused: lines that gave no example.
        source: file name, `hub` or `made`.
        digest: SHA-256 of the examples.
        unselected: rows the task's options leave out.
        places: number of each example's row among those its source gives, from 0; empty where it has none.
    """

    examples: list[Example]
    read: int
    refused: list[Refused]
    source: str
    digest: str
    unselected: int = 0
    places: Sequence[int] = ()


@dataclass(frozen=True)
class TaskRows:
    """The task, completed by its training rows where it has to be, and its splits.

    Args:
        task: the data set, or what the parts of a mixture have in common.
        splits: split name -> its rows.
        parts: part of a mixture -> names of its splits; empty for one data set.
        tasks: split of a mixture -> its part's own task; empty for one data set.
    """

    task: Task
    splits: Mapping[str, SplitRows]
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return rows read, used and refused over all splits, and those not selected where some may be."""
        account = self.account({})
        return {key: account[key] for key in self._keys()}

    def account(
        self,
        dropped: Mapping[str, int],
        shares: Mapping[str, int] | None = None,
        shortened: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Return rows read, used and refused, in all, by split and by part, with the reasons.

        Read = used + refused, + not_selected where the task selects rows.

        Args:
            dropped: split -> examples that encoding left without a target; they count as refused.
            shares: part of a mixture -> examples it gives to an epoch.
            shortened: split -> examples that encoding cut; they are used, and told where there are any.
        """
        splits = {
            name: {
                "read": split.read,
                "used": len(split.examples) - dropped.get(name, 0),
                "refused": len(split.refused) + dropped.get(name, 0),
                "not_selected": split.unselected,
            }
            for name, split in self.splits.items()
        }
        splits = {name: {key: split[key] for key in self._keys()} for name, split in splits.items()}
        parts = {part: self._sum(splits[name] for name in names) for part, names in self.parts.items()}
        cut = [
            f"{name}: {count} rows keep no target within --max-token-len"
            for name, count in dropped.items()
            if count
        ]
        for part, count in (shares or {}).items():
            parts[part]["drawn_per_epoch"] = count
        if shortened and any(shortened.values()):
            splits = {name: {**split, "cut": shortened.get(name, 0)} for name, split in splits.items()}
        by_part = {"parts": parts} if parts else {}
        return {**self._sum(splits.values()), "splits": splits, **by_part, "reasons": self.reasons() + cut}

    def reasons(self) -> list[str]:
        """Return `SPLIT SOURCE:LINE: REASON` for every refused row."""
        return [
            f"{name} {split.source}:{line}: {reason}"
            for name, split in self.splits.items()
            for line, reason in split.refused
        ]

    def digests(self) -> dict[str, str]:
        """Return each split's digest."""
        return {name: split.digest for name, split in self.splits.items()}

    def _keys(self) -> tuple[str, ...]:
        may_select = any(task.select is not None for task in (self.task, *self.tasks.values()))
        return ("read", "used", "refused", *(("not_selected",) if may_select else ()))

    def _sum(self, accounts: Iterable[Mapping[str, int]]) -> dict[str, int]:
        accounts = list(accounts)
        return {key: sum(account[key] for account in accounts) for key in self._keys()}


@dataclass(frozen=True)
class _Read:
    found: Found
    examples: list[Example] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    wrong_labels: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    unselected: list[int] = field(default_factory=list)


def wanted(task: Task, action: str, predict: bool = False) -> Wanted:
    """Name the splits an action uses.

    Args:
        task: the data set.
        action: `train`, `test`, `imp-test` or `train-dyrealloc`; `validation` for those sets alone.
        predict: whether predictions for unlabelled splits are written.
    """
    unlabelled = tuple(name for name, split in task.splits.items() if not split.labelled) if predict else ()
    evaluation = ("validation", *(name for name in task.splits if name.startswith("validation_")))
    has_test = "test" in task.splits and task.splits["test"].labelled
    if action == "imp-test":  # the validation set, because what it holds out is no training row
        return Wanted(("train", *evaluation))
    if action == "validation":
        return Wanted(evaluation)
    if action == "test":
        return Wanted(("test", *unlabelled) if has_test else (*evaluation, *unlabelled))
    return Wanted(("train", *evaluation, *unlabelled), ("test",) if has_test and task.generation else ())


def gather(
    task: Task, needed: Wanted, dataset_dir: Path | None, *, max_bad_rows: int = 0, fetch: Fetch | None = None
) -> TaskRows:
    """Read the splits an action needs and make examples of their rows.

    Args:
        task: the data set.
        needed: the splits (`wanted`).
        dataset_dir: the set's folder or its parent; without it rows come from the task or from `fetch`.
        max_bad_rows: how many rows of all splits together may be refused.
        fetch: how rows come from the hub; None when that is not wanted.

    Raises:
        InputFault: when a file is missing, or more rows are bad than allowed; one line per finding.
    """
    source = source_of(task, dataset_dir, fetch)
    found = _find(task, needed, source)
    if task.complete is not None:
        train = found.get("train") or _labels_source(task, source)
        task = task.complete([row for _, row in train.rows.rows])
    reads = {name: _examples(task, name, place) for name, place in found.items()}
    _accept(reads.values(), max_bad_rows)
    splits = {name: _split_rows(read, range(len(read.examples))) for name, read in reads.items()}
    if "validation" in needed.required and "validation" not in task.splits:
        splits |= _held_out(task, reads["train"])
    return TaskRows(task, splits)


def _find(task: Task, needed: Wanted, source: Callable[[str], Found]) -> dict[str, Found]:
    """Read every split that is needed; `validation` stands in `train` where the set has none."""
    found: dict[str, Found] = {}
    for name in (*needed.required, *needed.optional):
        stands_in = "train" if name == "validation" and name not in task.splits else name
        if stands_in in found:
            continue
        if stands_in not in task.splits:
            raise InputFault(f"data.{stands_in}: '{name}' of {task.name} is needed, but no file is named")
        try:
            place = source(stands_in)
        except Missing as missing:
            if name in needed.required:
                raise InputFault(str(missing)) from None
            continue
        found[stands_in] = place
    return found


def _labels_source(task: Task, source: Callable[[str], Found]) -> Found:
    if "train" not in task.splits:
        raise InputFault("data.labels: needed where no training file tells the labels")
    try:
        return source("train")
    except Missing as missing:
        raise InputFault(f"data.labels: needed where no training file tells the labels; {missing}") from None


def _examples(task: Task, name: str, found: Found) -> _Read:
    read = _Read(found, refused=list(found.rows.refused))
    is_labelled = task.splits[name].labelled
    for place, (line, row) in enumerate(found.rows.rows):
        try:
            if task.select is not None and not task.select(row):
                read.unselected.append(line)
                continue
            example = task.example(row)
            if is_labelled and example.label is None and example.response is None:
                raise RowFault("the label is missing")
            read.examples.append(example)
            read.places.append(place)
        except LabelFault as fault:
            read.wrong_labels.setdefault((fault.value, fault.allowed), []).append(line)
            read.refused.append(Refused(line, str(fault)))
        except RowFault as fault:
            read.refused.append(Refused(line, str(fault)))
    read.refused.sort()
    return read


def _accept(reads: Sequence[_Read], max_bad_rows: int) -> None:
    reads = list(reads)
    lines: list[str] = []
    if sum(len(read.refused) for read in reads) > max_bad_rows:
        lines = [line for read in reads for line in _findings(read)]
    lines += [
        f"{read.found.where}: no row {'is selected' if read.unselected else 'can be used'}"
        for read in reads
        if not read.examples and not lines
    ]
    if lines:
        raise InputFault(*lines)


def _findings(read: _Read) -> list[str]:
    where, total = read.found.where, read.found.rows.read
    of_labels = {line for lines in read.wrong_labels.values() for line in lines}
    malformed = [refused for refused in read.refused if refused.line not in of_labels]
    lines = [refusal(where, malformed, total)] if malformed else []
    for (value, allowed), rows in list(read.wrong_labels.items())[:_MOST_LABELS]:
        lines.append(f"{where}:{rows[0]}: label '{value}' in {len(rows)} of {total} rows, allowed {allowed}")
    if len(read.wrong_labels) > _MOST_LABELS:
        lines.append(
            f"{where}: {len(read.wrong_labels) - _MOST_LABELS} further labels are not allowed either"
        )
    return lines


def _held_out(task: Task, read: _Read) -> dict[str, SplitRows]:
    """Cut the last part of the shuffled training rows off; both parts keep the file's order."""
    total = len(read.examples)
    count = task.holdout if isinstance(task.holdout, int) else max(1, int(total * task.holdout))
    if count >= total:
        raise InputFault(f"{read.found.where}: {total} rows are too few to hold {count} out for validation")
    order = list(range(total))
    random.Random(_HOLDOUT_SEED).shuffle(order)
    held = set(order[total - count :])
    train = [index for index in range(total) if index not in held]
    apart = _Read(Found(read.found.where, read.found.source, Rows()), read.examples, read.places)
    return {"train": _split_rows(read, train), "validation": _split_rows(apart, sorted(held))}


def _split_rows(read: _Read, chosen: Sequence[int]) -> SplitRows:
    examples = [read.examples[index] for index in chosen]
    places = [read.places[index] for index in chosen]
    total, unselected = len(examples) + len(read.refused) + len(read.unselected), len(read.unselected)
    source = read.found.source
    return SplitRows(examples, total, read.refused, source, _digest(examples), unselected, places)


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        fields = [example.texts, example.label, example.response, example.gold]
        fields += [True] if example.closed else []
        fields += [example.task_type] if example.task_type else []
        digest.update(json.dumps(fields, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
