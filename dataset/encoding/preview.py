"""Show an example as it is learned."""

from collections.abc import Sequence
from typing import Any

from configs.schema.batch_keys import IGNORE_INDEX
from dataset.encoding.encoded_split import EncodedSplit


def preview(encoded: EncodedSplit, index: int, tokenizer: Any, labels: Sequence[str] = ()) -> str:
    """Return one example as text: targets in `[[` and `]]`, a class or value after `->`.

    Args:
        encoded: the split.
        index: the example.
        tokenizer: the tokenizer that the split was encoded with.
        labels: class names in the order of their ids.
    """
    item = encoded[index]
    ids = item["input_ids"].tolist()
    if "labels" not in item:
        return tokenizer.decode(ids)
    if item["labels"].dim() == 0:
        value = item["labels"].item()
        return f"{tokenizer.decode(ids)} -> [[{labels[int(value)] if labels else value}]]"
    begin = int((item["labels"] == IGNORE_INDEX).sum())  # the targets are the end of the example
    return f"{tokenizer.decode(ids[:begin])}[[{tokenizer.decode(ids[begin:])}]]"
