"""The validation examples of a data set as batches, for tools that evaluate on them."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.encoding.collate import Collate
from dataset.encoding.encode import encode
from dataset.rows.task_rows import TaskRows


def validation_batches(
    rows: TaskRows, tokenizer: Any, length: Callable[[int], int], *, most: int, batch_size: int
) -> list[dict[str, Tensor]]:
    """Return the first examples of every validation set, encoded as in training and padded on the right.

    Args:
        rows: the data set, or the parts of a mixture.
        tokenizer: a fast tokenizer of transformers, with a pad token.
        length: a data set's own longest input in tokens -> the one that is used.
        most: largest number of examples of each set.
        batch_size: examples per batch.

    Raises:
        InputFault: when no example keeps a target.
    """
    found: list[dict[str, Tensor]] = []
    collate = Collate(tokenizer.pad_token_id)
    for name, split in rows.splits.items():
        if name.partition("_")[0] == "validation":
            task = rows.tasks.get(name, rows.task)
            encoded = encode(task, name, split.examples[:most], tokenizer, length(task.default_max_token_len))
            items = [encoded[index] for index in range(len(encoded))]
            found += [
                collate(items[begin : begin + batch_size]) for begin in range(0, len(items), batch_size)
            ]
    if not found:
        raise InputFault("--dataset: no example keeps a target within the longest input")
    return found
