"""Counts and ratios of batches become whole numbers, here and nowhere else."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True)
class BatchLimit:
    """A number of batches, or a share of all of them; exactly one of the two is set.

    Args:
        count: batches, at least 1.
        ratio: share in (0, 1].
    """

    count: int | None = None
    ratio: float | None = None

    def of(self, total: int) -> int:
        """Return how many of `total` batches are meant: never more than exist, at least 1.

        A ratio counts as the decimal number it is written as: 0.1 of 30 is 3, although the float 0.1
        is a little more than a tenth.
        """
        if self.count is not None:
            return max(1, min(self.count, total))
        return max(1, share(self.ratio or 0.0, total))

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else repr(self.ratio)


def batches_per_device(batches: int, devices: int) -> int:
    """Return how many of an epoch's batches one of several devices computes: ceil(batches / devices)."""
    return -(-batches // devices)


def share(ratio: float, total: int) -> int:
    """Return ceil(ratio x total), exact in the ratio's decimal digits."""
    return ceil(Fraction(repr(float(ratio))) * total)


def warmup_steps(ratio: float, total_steps: int) -> int:
    """Return the steps of the learning rate's warm-up: ceil(ratio x total), as `transformers` counts them."""
    return min(share(ratio, total_steps), total_steps)
