"""Which matrices stop training: scores from gradients, a threshold from a share, decisions without a network.

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, section 3, and the published code. With g the gradient
after the backward pass and before the update of optimiser step t, and windows of n steps:

    t mod n = 0:  I <- beta1 I + (1 - beta1) w,  U <- beta2 U + (1 - beta2) |w - I|,  w <- |g|
    otherwise:    w <- running mean of |g| in the window
    element score S = I * U, matrix score = mean of S

    threshold = k-th smallest S of the pool, k = floor(count (1 - r)); matrices that score below it stop.

Differs: the code takes |sign(weight) g|, which is 0 where a weight is exactly 0; here it is |g|. At r = 0 all
matrices stop, also one whose scores are all alike, which never lies below their largest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Sensitivity:
    """What is remembered of one matrix; tensors of its shape.

    Args:
        window: w, mean of |g| over the steps of the running window.
        average: I, smoothed means of finished windows.
        deviation: U, their smoothed distance from I.
    """

    window: Tensor
    average: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> "Sensitivity":
        """Return the start: all zero."""
        return cls(*(torch.zeros_like(matrix, requires_grad=False) for _ in range(3)))

    def observe(self, magnitude: Tensor, place: int, beta1: float, beta2: float) -> None:
        """Take the next step's magnitudes.

        Args:
            magnitude: |g| of the matrix.
            place: the step's place in its window; at 0 the averages take the window before.
            beta1: share that I keeps.
            beta2: share that U keeps.
        """
        if place:
            self.window.mul_(place).add_(magnitude).div_(place + 1)
            return
        self.average.mul_(beta1).add_(self.window, alpha=1 - beta1)
        distance = (self.window - self.average).abs_()
        self.deviation.mul_(beta2).add_(distance, alpha=1 - beta2)
        self.window.copy_(magnitude)

    def score(self) -> Tensor:
        """Return S, element by element."""
        return self.average * self.deviation


class Stop(NamedTuple):
    """What a decision says: the matrices that stop, and the threshold they lie below (None: no one could)."""

    names: tuple[str, ...]
    threshold: float | None


def decide(scores: Mapping[str, Tensor], share: float, gone: int = 0) -> Stop:
    """Return which matrices stop.

    Args:
        scores: S of each matrix that still trains.
        share: r, the part of the pool that may train.
        gone: elements of frozen matrices that belong to the pool; they count as the smallest.
    """
    flat = [score.flatten() for score in scores.values()]
    count = sum(score.numel() for score in flat) + gone
    place = int(count * (1 - share)) - gone
    if place <= 0 or not flat:
        return Stop((), None)
    threshold = float(torch.cat(flat).kthvalue(place).values)
    below = (name for name, score in scores.items() if share <= 0 or matrix_score(score) < threshold)
    return Stop(tuple(below), threshold)


def matrix_score(score: Tensor) -> float:
    """Return the mean of a matrix's element scores, summed in double precision."""
    return float(score.mean(dtype=torch.float64))
