"""What every encoded split offers, whether it holds texts, questions or the parts of a mixture."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from torch import Tensor

Purpose = Literal["learn", "predict", "generate"]
"""learn: examples with labels; predict: examples without; generate: prompts alone."""
Item = dict[str, Tensor]
"""One example: key of `configs.schema.batch_keys` -> tensor without the batch dimension."""
Draw = Callable[[int], Tensor]
"""Epoch -> (count,) int64, the indices of the examples it holds, in no particular order."""


class EncodedSplit(Protocol):
    """The examples of one split as tokens, read by samplers, collation and the data module."""

    @property
    def purpose(self) -> Purpose:
        """What the examples are for; prompts for generation are padded on the left."""
        ...

    @property
    def cut(self) -> int:
        """Number of examples that were truncated."""
        ...

    @property
    def dropped(self) -> int:
        """Number of examples left out because truncation left no target."""
        ...

    @property
    def task_types(self) -> Sequence[str]:
        """Type of task of each example, (N,); empty where the rows do not state it. No batch holds it."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Number of tokens of each example, (N,)."""
        ...

    def __len__(self) -> int:
        """Return the number of examples N."""
        ...

    def __getitem__(self, index: int) -> Item:
        """Return one example's tensors."""
        ...

    def draw(self, seed: int) -> Draw | None:
        """Return how an epoch chooses its examples; None where it holds each of them once.

        Args:
            seed: the run's seed.
        """
        ...

    def stored_order(self) -> Sequence[int]:
        """Return the examples of an epoch in the fixed order in which importance tests read them."""
        ...
