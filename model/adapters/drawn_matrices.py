"""Matrices that a seed gives, so that files hold the seed and a checksum instead of the matrices.

Sites of one shape may share a matrix. Each is drawn once for a seed and each pair hashed once, however many
sites ask: with rank 1024, drawing and hashing take longer than everything else in building the adapters.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from model.adapters.initialisation import kaiming_uniform_
from model.tensors.random_state import generator


class _Drawn(NamedTuple):
    """A tensor and the seed that it was drawn from."""

    tensor: Tensor
    seed: int


class DrawnMatrices:
    """The matrices of one build, each known by its purpose: the words that name its generator.

    They never train, so what was drawn is there until it is drawn from another seed.
    """

    def __init__(self) -> None:
        self._drawn: dict[str, _Drawn] = {}
        self._checksums: dict[tuple[str, str], int] = {}

    def fill(self, purpose: str, tensor: Tensor, fan_in: int, seed: int) -> None:
        """Draw a matrix in place, Kaiming uniform (a = 0), unless it holds this draw already.

        Args:
            purpose: names the generator; the same purpose always has the same shape.
            tensor: the matrix, (R, D).
            fan_in: inputs that each output sums over.
            seed: the run's seed.
        """
        known = self._drawn.get(purpose)
        if known is not None and known.tensor is tensor and known.seed == seed:
            return
        kaiming_uniform_(tensor, fan_in, generator(seed, purpose), a_squared=0)
        self._drawn[purpose] = _Drawn(tensor, seed)
        self._checksums = {pair: found for pair, found in self._checksums.items() if purpose not in pair}

    def checksum(self, first: str, second: str) -> int:
        """Return 56 bits of the SHA-256 of two matrices' float32 numbers, 0 on the meta device.

        Args:
            first: purpose of the matrix that is hashed first.
            second: purpose of the other; both were filled.
        """
        pair = (first, second)
        if pair not in self._checksums:
            self._checksums[pair] = _checksum(*(self._drawn[purpose].tensor for purpose in pair))
        return self._checksums[pair]


def _checksum(*tensors: Tensor) -> int:
    if any(tensor.is_meta for tensor in tensors):
        return 0
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return int.from_bytes(digest.digest()[:7], "big")
