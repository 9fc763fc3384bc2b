"""Pad examples to the longest of their batch; attention masks come from lengths, not from comparing ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from configs.schema.batch_keys import KEYS, BatchKey
from dataset.encoding.encoded_split import Item

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Collate:
    """Make a batch of the items of an encoded split.

    Args:
        pad_id: token id of padding; it may equal that of the end-of-sequence token.
        side: where padding goes: right for training and evaluation, left for generation.
    """

    pad_id: int
    side: Side = "right"

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return the batch: the keys of the items and `attention_mask`, shapes as in `batch_keys`."""
        masked = [{**item, "attention_mask": torch.ones_like(item["input_ids"])} for item in items]
        return {
            key.name: self._joined(key, [item[key.name] for item in masked])
            for key in KEYS
            if key.name in masked[0]
        }

    def _joined(self, key: BatchKey, parts: list[Tensor]) -> Tensor:
        # Labels may be one number for each example, which needs no padding.
        if key.padding is None or parts[0].dim() == 0:
            return torch.stack(parts)
        value = self.pad_id if key.padding == "pad_id" else key.padding
        return pad_sequence(parts, batch_first=True, padding_value=value, padding_side=self.side)
