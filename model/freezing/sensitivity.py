"""Which matrices are frozen: scores from gradients, a threshold from a share; decisions without a network.

With g the gradient after the backward pass and before the update of optimiser step t, and windows of n steps:

    t mod n = 0:  I <- beta1 I + (1 - beta1) w,  U <- beta2 U + (1 - beta2) |w - I|,  w <- |g|
    otherwise:    w <- running mean of |g| in the window
    element score S = I * U, matrix score = mean of S

    threshold = k-th smallest S of the pool, k = floor(count (1 - r))
    frozen are the matrices that score below the threshold

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, section 3, and the published code.
Differs: the code takes |sign(weight) g|, which is 0 where a weight is exactly 0; here it is |g|. At r = 0 all
matrices are frozen, also one whose element scores are all equal, whose mean is never below the largest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Sensitivity:
    """The running averages of one matrix; tensors of its shape.

    Args:
        window: w, mean of |g| over the steps of the current window.
        average: I, smoothed means of finished windows.
        deviation: U, their smoothed distance from I.
    """

    window: Tensor
    average: Tensor
    deviation: Tensor

    @classmethod
    def zeros_like(cls, matrix: Tensor) -> "Sensitivity":
        """Return the start: all zero, of the matrix's shape."""
        return cls(*(torch.zeros_like(matrix, requires_grad=False) for _ in range(3)))

    def tensors(self) -> dict[str, Tensor]:
        """Return w, I and U by their names here."""
        return dict(vars(self))

    def to(self, device: torch.device) -> None:
        """Move the tensors to a device."""
        for name, tensor in self.tensors().items():
            setattr(self, name, tensor.to(device))

    def observe(self, magnitude: Tensor, place: int, beta1: float, beta2: float) -> None:
        """Add the next step's gradient magnitudes.

        Args:
            magnitude: |g|, of the matrix's shape.
            place: t mod n; at 0 the averages take in the previous window.
            beta1: share that I keeps of itself, in [0, 1].
            beta2: share that U keeps of itself, in [0, 1].
        """
        if place:
            self.window.mul_(place).add_(magnitude).div_(place + 1)
            return
        self.average.mul_(beta1).add_(self.window, alpha=1 - beta1)
        distance = (self.window - self.average).abs_()
        self.deviation.mul_(beta2).add_(distance, alpha=1 - beta2)
        self.window.copy_(magnitude)

    def score(self) -> Tensor:
        """Return S, element by element, of the matrix's shape."""
        return self.average * self.deviation


class Selection(NamedTuple):
    """The matrices to freeze, and the threshold they score below; None where none could."""

    names: tuple[str, ...]
    threshold: float | None


def select_frozen(scores: Mapping[str, Tensor], share: float, already_frozen: int = 0) -> Selection:
    """Return which matrices to freeze.

    Args:
        scores: S of each matrix that still trains.
        share: r, the share of the pool that may train, in [0, 1].
        already_frozen: elements of frozen matrices that belong to the pool; they count as the smallest.
    """
    flat = [score.flatten() for score in scores.values()]
    count = sum(score.numel() for score in flat) + already_frozen
    place = int(count * (1 - share)) - already_frozen
    if place <= 0 or not flat:
        return Selection((), None)
    threshold = float(torch.cat(flat).kthvalue(place).values)
    below = (name for name, score in scores.items() if share <= 0 or matrix_score(score) < threshold)
    return Selection(tuple(below), threshold)


def matrix_score(score: Tensor) -> float:
    """Return the mean of a matrix's element scores, summed in double precision."""
    return float(score.mean(dtype=torch.float64))
