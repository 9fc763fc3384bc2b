"""Sums of the residual stream on their way from one layer to the next."""

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class StreamSums:
    """The sum after attention of each layer, for the layer after it.

    A sum belongs to the very tensor that enters the next layer and lives as long as that does: a recomputed
    layer (gradient checkpointing) finds the sum of its own forward pass, and nothing outlives a batch.
    """

    def __init__(self) -> None:
        self._left: tuple[int, Tensor] | None = None
        self._sums = WeakTensorKeyDictionary()

    def put(self, number: int, total: Tensor) -> None:
        """Keep the sum of a layer that has just run. total: (B, T, D) or (B T, D)."""
        self._left = number, total

    def bind(self, number: int, x: Tensor) -> None:
        """Bind the sum that the layer before put here to the input x (B, T, D) of this layer."""
        left, self._left = self._left, None
        if left is not None and left[0] == number - 1:
            self._sums[x] = left[1]

    def get(self, x: Tensor) -> Tensor:
        """Return the sum that is bound to an input.

        Raises:
            RuntimeError: when none is; checkpointing that copies its inputs (`use_reentrant`) does that.
        """
        if x not in self._sums:
            raise RuntimeError("a layer's input came without the sum of the layer before it")
        return self._sums[x]

    def __reduce__(self) -> tuple[type["StreamSums"], tuple[()]]:
        """Copies and pickles are empty: sums in flight belong to one forward pass."""
        return StreamSums, ()
