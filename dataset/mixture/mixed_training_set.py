"""The training examples of a mixture's parts as one set."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.encoding.encode import Encoded
from dataset.mixture.epochs import Draw, mixture_draw, quotas, stored_order
from dataset.mixture.parts import Part


class Blend:
    """The parts' encoded training splits, numbered through one behind the other; serves as an `Encoded` does.

    Args:
        members: the parts' training splits.
        weights: the parts' relative shares of an epoch; None for their sizes.
    """

    purpose = "learn"
    cut = dropped = 0  # counted at the parts' own splits

    def __init__(self, members: Sequence[Encoded], weights: Sequence[float] | None) -> None:
        self.members = list(members)
        self.sizes = [len(member) for member in members]
        self.quotas = quotas(self.sizes, weights)
        self._weighted = weights is not None
        self._ends = list(accumulate(self.sizes))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        member = bisect_right(self._ends, index)
        return self.members[member][index - self._ends[member] + self.sizes[member]]

    @property
    def lengths(self) -> list[int]:
        """Token counts of the examples."""
        return [length for member in self.members for length in member.lengths]

    def draw(self, seed: int) -> Draw | None:
        """Return how an epoch chooses its examples; None where it holds each of them once."""
        return mixture_draw(self.sizes, self.quotas, seed) if self._weighted else None

    def stored_order(self) -> list[int]:
        """Return an epoch's examples without chance, the parts evenly interleaved."""
        return stored_order(self.sizes, self.quotas)


def blend(
    splits: Mapping[str, Encoded], parts: Sequence[Part]
) -> tuple[dict[str, Encoded | Blend], dict[str, int]]:
    """Put the parts' training splits together.

    Returns:
        The splits, with one more, `train`; and part -> examples it gives to an epoch. The splits of one data
        set, and of a mixture that is not trained, stay as they are.

    Raises:
        InputFault: naming a split that is empty, and a part that gives no example to an epoch.
    """
    empty = [name for name, split in splits.items() if len(split) == 0]
    if empty:
        raise InputFault(*(f"--max-token-len: no row of {name} keeps a target within it" for name in empty))
    trained = [part for part in parts if part.name and part.split("train") in splits]
    if not trained:
        return dict(splits), {}
    weights = [part.weight for part in trained if part.weight is not None]
    train = Blend([splits[part.split("train")] for part in trained], weights or None)
    faults = [
        f"{part.where}: weight: {part.weight:g} gives '{part.name}' none of an epoch's {len(train)} examples"
        for part, count in zip(trained, train.quotas)
        if count == 0
    ]
    if faults:
        raise InputFault(*faults)
    return {**splits, "train": train}, {part.name: count for part, count in zip(trained, train.quotas)}
