"""Convert numbers and ratios of batches to whole numbers; every other module calls this one."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True)
class BatchLimit:
    """A number of batches or a ratio of all of them; exactly one of the two is set.

    Args:
        count: number of batches, at least 1.
        ratio: fraction in (0, 1].
    """

    count: int | None = None
    ratio: float | None = None

    def of(self, total: int) -> int:
        """Return how many of `total` batches that is: at least 1, at most all.

        A ratio is taken as the decimal number it is written as: 0.1 of 30 is 3, although the float 0.1 is
        slightly more than a tenth.
        """
        if self.count is not None:
            return max(1, min(self.count, total))
        return max(1, share(self.ratio or 0.0, total))

    def __str__(self) -> str:
        return str(self.count) if self.count is not None else repr(self.ratio)


def batches_per_device(batches: int, devices: int) -> int:
    """Return how many of an epoch's batches each device computes: ceil(batches / devices)."""
    return -(-batches // devices)


def share(ratio: float, total: int) -> int:
    """Return ceil(ratio x total), exact in the ratio's decimal digits."""
    return ceil(Fraction(repr(float(ratio))) * total)


def warmup_steps(ratio: float, total_steps: int) -> int:
    """Return the steps of the learning rate's warm-up: ceil(ratio x total), as `transformers` counts them."""
    return min(share(ratio, total_steps), total_steps)
