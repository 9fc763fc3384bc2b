"""The gate of a layer: how much each of k trained LoRA sets weighs, token by token.

With x (..., D), the input of the layer before its first norm, G (k, D) and b (k):

    w(x) = softmax(G x / T) + b                          (..., k)

The bias is added after the softmax and the weights are not normalised again.

Source: LoRA-Flow (Wang et al. 2024, arXiv 2402.11455), section 3.2; the start is that of its published code:
G = 0 and b such that the last set, the task's, weighs 1 and all others weigh 0.
Differs: logits and softmax are in float32 under any precision, as the routers' of `model.adapters.experts`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.adapters.experts import router_dtype, router_weights
from model.plan.flow_table import Combine, Start


class Gate(nn.Module):
    """The weights of one layer's sets; all adapted linears of the layer read the same.

    Args:
        width: D.
        sets: k.
        combine: gate: G and b train; bias: b alone, the same for every token; uniform: 1 / k, and constant:
            given weights, nothing trains.
        temperature: T.
        start: last: the last set weighs 1, the others 0; uniform: 1 / k each.
        weights: those of `constant`, one for each set.

    Attributes:
        observer: is called with the weights (..., k) of every pass.
        linears: how many linears of the layer ask for the weights in a pass. After the last one they are
            dropped, so that no layer's input outlives its pass.
    """

    def __init__(  # noqa: PLR0913 - flat arguments: the keys of a table
        self,
        width: int,
        sets: int,
        *,
        combine: Combine,
        temperature: float,
        start: Start,
        weights: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.sets, self.combine, self.temperature, self.given = sets, combine, temperature, weights
        self.G = nn.Parameter(torch.zeros(sets, width)) if combine == "gate" else None
        first = -1.0 / sets if start == "last" else 0.0
        bias = torch.full((sets,), first)
        bias[-1] += start == "last"
        if combine in ("gate", "bias"):
            self.b = nn.Parameter(bias)
        else:
            fixed = torch.full((sets,), 1.0 / sets) if combine == "uniform" else torch.tensor(weights)
            self.register_buffer("b", fixed)
        self.observer: Callable[[Tensor], None] | None = None
        self.linears = 0
        self._left = 0
        self._source: Tensor | None = None
        self._weights: Tensor | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether every token has the same weights."""
        return self.G is None

    def read(self, x: Tensor) -> None:
        """Take the layer's input; weights are computed when the first linear asks. x: (..., D)."""
        self._source, self._weights, self._left = x, None, self.linears

    def forget(self) -> None:
        """Drop the input and its weights, which belong to one pass of the layer."""
        self._source = self._weights = None

    def weights(self) -> Tensor:
        """Return w of the layer's input, computed once a pass: (..., k), or (k) where tokens do not matter.

        Raises:
            RuntimeError: when a linear runs outside its layer, so that there is no input.
        """
        if self.is_fixed:
            return self.b + 1.0 / self.sets if self.combine == "bias" else self.b
        if self._source is None:
            raise RuntimeError("a gate weighs sets by the input of its layer, and the layer is not running")
        if self._weights is None:
            self._weights = self.of(self._source)
            if self.observer is not None:
                self.observer(self._weights.detach())
        weights, self._left = self._weights, self._left - 1
        if self._left <= 0:
            self.forget()
        return weights

    def of(self, x: Tensor) -> Tensor:
        """Return softmax(G x / T) + b in float32, or in float64 for such x. x: (..., D) -> (..., k)."""
        assert self.G is not None
        return router_weights(x, self.G / self.temperature) + self.b.to(router_dtype(x.dtype))

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to one pass."""
        return {**self.__dict__, "_source": None, "_weights": None}
