"""The examples of a task's splits, with an account of every row they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.task import Example, Refused, Task


@dataclass(frozen=True)
class SplitRows:
    """One split, ready to be encoded.

    Args:
        examples: the examples, in file order.
        read: number of rows read: those used, refused and not selected.
        refused: the lines that gave no example, each with its reason.
        source: file name, `hub` or `made`.
        digest: SHA-256 of the examples, in hexadecimal.
        unselected: number of rows that the task's options leave out.
        row_indices: index, from 0, of each example's row among the rows of its source; empty where the
            examples were not made from rows.
    """

    examples: list[Example]
    read: int
    refused: list[Refused]
    source: str
    digest: str
    unselected: int = 0
    row_indices: Sequence[int] = ()


@dataclass(frozen=True)
class TaskRows:
    """The examples of all splits that a run uses.

    Args:
        task: the data set, completed by its training rows where necessary (`Task.complete`); for a mixture
            the task that its parts have in common.
        splits: split name -> its examples.
        parts: part of a mixture -> names of its splits; empty for a single data set.
        tasks: split of a mixture -> its part's own task; empty for a single data set.
    """

    task: Task
    splits: Mapping[str, SplitRows]
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return how many rows of all splits were read, used and refused, and not selected if some can be."""
        account = self.account({})
        return {key: account[key] for key in self._keys()}

    def account(
        self,
        dropped: Mapping[str, int],
        shares: Mapping[str, int] | None = None,
        shortened: Mapping[str, int] | None = None,
        unscored: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Return how many rows were read, used and refused, in total, by split and by part, with the reasons.

        read = used + refused, + not_selected where the task or `--limit-test-samples` selects rows.

        Args:
            dropped: split -> number of examples that have no target after truncation; they count as refused.
            shares: part of a mixture -> number of examples it contributes to an epoch.
            shortened: split -> number of truncated examples; they are used, and reported where there are any.
            unscored: split -> number of examples that `--limit-test-samples` leaves out; a split of running
                text is counted in full, because its examples are not its rows.
        """
        left_out = {name: count for name, count in (unscored or {}).items() if not self._task(name).packed}
        keys = self._keys(is_limited=any(left_out.values()))
        splits = {name: self._counts(name, dropped, left_out, keys) for name in self.splits}
        parts = {part: _sum([splits[name] for name in names], keys) for part, names in self.parts.items()}
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
        return {
            **_sum(list(splits.values()), keys),
            "splits": splits,
            **by_part,
            "reasons": self.reasons() + cut,
        }

    def reasons(self) -> list[str]:
        """Return `SPLIT SOURCE:LINE: REASON` for every refused row."""
        return [
            f"{name} {split.source}:{line}: {reason}"
            for name, split in self.splits.items()
            for line, reason in split.refused
        ]

    def digests(self) -> dict[str, str]:
        """Return split name -> SHA-256 of its examples."""
        return {name: split.digest for name, split in self.splits.items()}

    def _task(self, name: str) -> Task:
        return self.tasks.get(name, self.task)

    def _keys(self, is_limited: bool = False) -> tuple[str, ...]:
        may_select = is_limited or any(task.select is not None for task in (self.task, *self.tasks.values()))
        return ("read", "used", "refused", *(("not_selected",) if may_select else ()))

    def _counts(
        self, name: str, dropped: Mapping[str, int], left_out: Mapping[str, int], keys: Sequence[str]
    ) -> dict[str, int]:
        split, lost, limited = self.splits[name], dropped.get(name, 0), left_out.get(name, 0)
        counts = {
            "read": split.read,
            "used": len(split.examples) - lost - limited,
            "refused": len(split.refused) + lost,
            "not_selected": split.unselected + limited,
        }
        return {key: counts[key] for key in keys}


def _sum(accounts: Sequence[Mapping[str, int]], keys: Sequence[str]) -> dict[str, int]:
    return {key: sum(account[key] for account in accounts) for key in keys}
