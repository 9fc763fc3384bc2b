"""The start of a run on its rows: why some are refused, and which are both trained and evaluated on."""

from collections.abc import Hashable, Iterator, Mapping

from dataset.rows.task_rows import TaskRows
from dataset.task import Example

_MOST_REASONS = 5


def refusals(rows: TaskRows, dropped: Mapping[str, int], longest: Mapping[str, int]) -> list[str]:
    """Return `COUNT of SPLIT: REASON`, the most frequent first; beyond five reasons the rest is summed up.

    Args:
        rows: all rows of a run.
        dropped: split -> number of examples that have no target after truncation.
        longest: split -> the length that they were truncated to, in tokens.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for name, split in rows.splits.items():
        for line, reason in split.refused:
            found.setdefault((name, reason), []).append(line)
    counted = [
        (len(lines), f"{len(lines):,} of {name}: {reason} (first: {rows.splits[name].source}:{lines[0]})")
        for (name, reason), lines in found.items()
    ]
    counted += [
        (count, f"{count:,} of {name}: no target is left within --max-token-len {longest[name]}")
        for name, count in dropped.items()
        if count
    ]
    counted.sort(key=lambda one: -one[0])
    lines = [line for _, line in counted[:_MOST_REASONS]]
    rest = counted[_MOST_REASONS:]
    return [*lines, *([f"{sum(count for count, _ in rest):,} for {len(rest)} other reasons"] if rest else [])]


def repeated_rows(rows: TaskRows) -> list[str]:
    """Return a note for each evaluation set that has rows with the texts and the target of a training row.

    Running text is left out: its lines are no examples. Needs time and memory proportional to the rows.
    """
    trained: set[Hashable] = set()
    for name in _names(rows, "train"):
        trained.update(map(_content, rows.splits[name].examples))
    counts = {
        name: (sum(_content(one) in trained for one in rows.splits[name].examples), rows.splits[name])
        for kind in ("validation", "test")
        for name in _names(rows, kind)
    }
    return [
        f"{count:,} of {len(split.examples):,} rows of {name} equal a training row in texts and target"
        for name, (count, split) in counts.items()
        if count
    ]


def _names(rows: TaskRows, kind: str) -> Iterator[str]:
    for name in rows.splits:
        if f"{name}_".startswith(f"{kind}_") and not rows.tasks.get(name, rows.task).packed:
            yield name


def _content(example: Example) -> Hashable:
    return example.texts, example.label, example.response
