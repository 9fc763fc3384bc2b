"""Pad examples to the longest of their batch; masks come from lengths, never from comparing ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dataset.encoding.encode import IGNORED

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Collate:
    """Make a batch of `Encoded` items.

    Args:
        pad_id: the id that fills up; it may equal the end token's.
        side: where it fills: right for learning, left for generation.
    """

    pad_id: int
    side: Side = "right"

    def __call__(self, items: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return input_ids and attention_mask (B, T), and labels, token_type_ids, index as given."""
        ids = [item["input_ids"] for item in items]
        batch = {
            "input_ids": self._pad(ids, self.pad_id),  # (B, T)
            "attention_mask": self._pad([torch.ones_like(tokens) for tokens in ids], 0),  # (B, T)
        }
        if "token_type_ids" in items[0]:
            batch["token_type_ids"] = self._pad([item["token_type_ids"] for item in items], 0)  # (B, T)
        if "labels" in items[0]:
            labels = [item["labels"] for item in items]
            is_per_token = labels[0].dim() == 1
            batch["labels"] = (
                self._pad(labels, IGNORED) if is_per_token else torch.stack(labels)
            )  # (B, T) or (B,)
        for name in ("index", "letters", "group"):
            if name in items[0]:
                batch[name] = torch.stack([item[name] for item in items])  # (B,), letters (B, 4)
        return batch

    def _pad(self, parts: list[Tensor], value: int) -> Tensor:
        return pad_sequence(parts, batch_first=True, padding_value=value, padding_side=self.side)
