"""Encode the examples of a run and make the data module that serves them as batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from configs.schema.options import Options
from dataset.batches.data_module import TaskData
from dataset.encoding.encode import encode
from dataset.encoding.encoded_split import EncodedSplit
from dataset.encoding.preview import preview
from dataset.mixture.mixed_training_set import mix_training_splits
from dataset.mixture.parts import Part
from dataset.rows.task_rows import TaskRows


class Served(NamedTuple):
    """The encoded data of a run.

    Args:
        data: its batches.
        shares: part of a mixture -> number of examples it contributes to an epoch.
        example: the first example of each part as text, with its targets marked (`preview`).
        longest: split -> longest example in tokens.
    """

    data: TaskData
    shares: dict[str, int]
    example: str
    longest: dict[str, int]


def serve(
    rows: TaskRows, parts: Sequence[Part], options: Options, tokenizer: Any, limit: Callable[..., int]
) -> Served:
    """Encode every split and combine the training splits of a mixture.

    Args:
        rows: all rows of the run.
        parts: the data set, or those of a mixture.
        options: the effective options.
        tokenizer: the network's, a fast tokenizer of transformers.
        limit: (length, given=...) -> the longest input in tokens; `given` says whether a user asked for it.

    Raises:
        InputFault: for a split without any target after truncation, and a length that the network cannot
            take.
    """
    given = options.max_token_len is not None
    splits: dict[str, EncodedSplit] = {}
    lengths: dict[str, int] = {}
    for name, split in rows.splits.items():
        task = rows.tasks.get(name, rows.task)
        longest = limit(options.max_token_len if given else task.default_max_token_len, given=given)
        lengths[name] = longest
        splits[name] = encode(task, name, split.examples, tokenizer, longest)
    mixed, shares = mix_training_splits(splits, parts)
    data = TaskData(
        mixed,
        options.batch_size,
        options.seed,
        tokenizer.pad_token_id,
        length_grouped=options.length_grouped,
        num_workers=options.num_workers,
        limit_test_samples=options.limit_test_samples,
    )
    return Served(data, shares, _examples(rows, splits, tokenizer), lengths)


def _examples(rows: TaskRows, splits: Mapping[str, EncodedSplit], tokenizer: Any) -> str:
    """Return the first example of each part as it is learned, one line each."""
    firsts = {f"{part}: ": names[0] for part, names in rows.parts.items()} or {"": next(iter(splits))}
    lines = (begin + preview(splits[name], 0, tokenizer, rows.task.labels) for begin, name in firsts.items())
    return "\n".join(lines)
