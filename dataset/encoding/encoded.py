"""Texts, or prompts with responses, as tokens; here prompt tokens get the label that the loss ignores."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from configs.schema.batch_keys import IGNORE_INDEX
from dataset.encoding.encoded_split import Item, Purpose


@dataclass(frozen=True)
class Encoded:
    """Texts, or prompts and responses, as tokens; an `EncodedSplit`.

    Args:
        tokens: (total,) int32, the ids of all examples, concatenated.
        starts: (N + 1,) int64, where each example begins in `tokens`.
        rows: (N,) int64, the example's number in its split.
        purpose: learn (with labels), predict (no labels), generate (prompts alone).
        prompt_lengths: (N,) int64, number of tokens of the prompt; None for classification.
        labels: (N,) int64 or float32; None for language modelling and predictions.
        token_type_ids: (total,) int32, when the tokenizer makes them.
        cut: number of examples that were truncated.
        dropped: number of examples left out because truncation left no target.
        task_types: (N,) type of task of each example; empty where the rows do not state it.
    """

    tokens: Tensor
    starts: Tensor
    rows: Tensor
    purpose: Purpose
    prompt_lengths: Tensor | None = None
    labels: Tensor | None = None
    token_type_ids: Tensor | None = None
    cut: int = 0
    dropped: int = 0
    task_types: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        begin, end = int(self.starts[index]), int(self.starts[index + 1])
        item = {"input_ids": self.tokens[begin:end].long()}
        if self.token_type_ids is not None:
            item["token_type_ids"] = self.token_type_ids[begin:end].long()
        if self.labels is not None:
            item["labels"] = self.labels[index]
        elif self.purpose == "learn" and self.prompt_lengths is not None:
            item["labels"] = item["input_ids"].clone()
            item["labels"][: int(self.prompt_lengths[index])] = IGNORE_INDEX
        if self.purpose != "learn":
            item["index"] = self.rows[index]
        return item

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return (self.starts[1:] - self.starts[:-1]).tolist()

    def draw(self, seed: int) -> None:
        """Return None: an epoch holds each example once."""

    def stored_order(self) -> Sequence[int]:
        """Return the examples in file order."""
        return range(len(self))
