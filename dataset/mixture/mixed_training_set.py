"""The training examples of a mixture's parts as one set."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from configs.runtime.faults import InputFault
from dataset.encoding.encoded_split import Draw, EncodedSplit, Item, Purpose
from dataset.mixture.epochs import mixture_draw, quotas, stored_order
from dataset.mixture.parts import Part


class MixedTrainingSet:
    """The encoded training splits of all parts, concatenated; an `EncodedSplit`.

    Args:
        members: the parts' training splits.
        weights: the parts' relative shares of an epoch; None for shares by size.
    """

    purpose: Purpose = "learn"
    cut = dropped = 0  # counted at the parts' own splits
    task_types: Sequence[str] = ()  # only evaluation reads them

    def __init__(self, members: Sequence[EncodedSplit], weights: Sequence[float] | None) -> None:
        self.members = list(members)
        self.sizes = [len(member) for member in members]
        self.quotas = quotas(self.sizes, weights)
        self._is_weighted = weights is not None
        self._ends = list(accumulate(self.sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Item:
        member = bisect_right(self._ends, index)
        return self.members[member][index - self._ends[member] + self.sizes[member]]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [length for member in self.members for length in member.lengths]

    def draw(self, seed: int) -> Draw | None:
        """Return how an epoch chooses its examples; None without weights: it holds each of them once."""
        return mixture_draw(self.sizes, self.quotas, seed) if self._is_weighted else None

    def stored_order(self) -> list[int]:
        """Return the examples of an epoch in a fixed order, the parts evenly interleaved."""
        return stored_order(self.sizes, self.quotas)


def mix_training_splits(
    splits: Mapping[str, EncodedSplit], parts: Sequence[Part]
) -> tuple[dict[str, EncodedSplit], dict[str, int]]:
    """Combine the training splits of a mixture's parts.

    Args:
        splits: split name -> its examples.
        parts: the data set, or those of a mixture.

    Returns:
        The splits with one more, `train`; and part -> number of examples it contributes to an epoch. The
        splits of a single data set, and of a mixture that is not trained, are returned unchanged.

    Raises:
        InputFault: for every empty split, and for every part that contributes no example to an epoch.
    """
    empty = [name for name, split in splits.items() if len(split) == 0]
    if empty:
        raise InputFault(*(f"--max-token-len: no row of {name} keeps a target within it" for name in empty))
    trained = [part for part in parts if part.name and part.split("train") in splits]
    if not trained:
        return dict(splits), {}
    weights = [part.weight for part in trained if part.weight is not None]
    train = MixedTrainingSet([splits[part.split("train")] for part in trained], weights or None)
    faults = [
        f"{part.where}: weight: {part.weight:g} gives '{part.name}' none of an epoch's {len(train)} examples"
        for part, count in zip(trained, train.quotas)
        if count == 0
    ]
    if faults:
        raise InputFault(*faults)
    return {**splits, "train": train}, {part.name: count for part, count in zip(trained, train.quotas)}
