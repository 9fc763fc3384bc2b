"""Encode the rows of a run and make the data module that serves them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from configs.schema.options import Options
from dataset.batches.data_module import TaskData
from dataset.encoding.encode import Encoded, encode
from dataset.encoding.preview import preview
from dataset.mixture.mixed_training_set import blend
from dataset.mixture.parts import Part
from dataset.rows.task_rows import TaskRows


class Served(NamedTuple):
    """The encoded data of a run.

    Args:
        data: its batches.
        shares: part of a mixture -> examples it gives to an epoch.
        example: one decoded example of each part with its loss mask.
    """

    data: TaskData
    shares: dict[str, int]
    example: str


def serve(
    rows: TaskRows, parts: Sequence[Part], options: Options, tokenizer: Any, limit: Callable[..., int]
) -> Served:
    """Encode every split.

    Args:
        rows: all rows of the run.
        parts: the data set, or those of a mixture.
        options: the effective options.
        tokenizer: that of the network.
        limit: (wanted, given=...) -> the longest input in tokens; `given` tells whether a user asked for it.

    Raises:
        InputFault: for a split whose rows all lose their target, and a length the network cannot take.
    """
    given = options.max_token_len is not None
    splits: dict[str, Encoded] = {}
    for name, split in rows.splits.items():
        task = rows.tasks.get(name, rows.task)
        longest = limit(options.max_token_len if given else task.length, given=given)
        splits[name] = encode(task, name, split.examples, tokenizer, longest)
    blended, shares = blend(splits, parts)
    data = TaskData(
        blended,
        options.batch_size,
        options.seed,
        tokenizer.pad_token_id,
        length_grouped=options.length_grouped,
        num_workers=options.num_workers,
        limit_test_samples=options.limit_test_samples,
    )
    return Served(data, shares, _examples(rows, splits, tokenizer))


def _examples(rows: TaskRows, splits: Mapping[str, Encoded], tokenizer: Any) -> str:
    """Return the first example of each part as it is learned, a line each."""
    firsts = {f"{part}: ": names[0] for part, names in rows.parts.items()} or {"": next(iter(splits))}
    lines = (begin + preview(splits[name], 0, tokenizer, rows.task.labels) for begin, name in firsts.items())
    return "\n".join(lines)
