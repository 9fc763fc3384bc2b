"""Adapters of kinds that the tree has not yet, for what must not be guessed from names."""

import torch
from torch import Tensor, nn

from model.adapters.adapter import Adapter


class RankGated(Adapter):
    """x -> B (gate * (A x)): A and B are random, `gate` (R) is zero. It weighs ranks, not adapters.

    AdaLoRA (arXiv 2303.10512, equation 3) starts so, with its singular values as the gate; SoRA
    (arXiv 2311.11696) calls its own a gate.
    """

    def __init__(self, width: int) -> None:
        super().__init__(rank=2, alpha=2.0, dropout=0.0)
        draw = torch.Generator().manual_seed(0)
        self.A = nn.Parameter(torch.randn(2, width, generator=draw))
        self.B = nn.Parameter(torch.randn(width, 2, generator=draw))
        self.gate = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.A.t() * self.gate) @ self.B.t()

    def factors(self) -> dict[str, Tensor]:
        return {"A": self.A, "B": self.B, "gate": self.gate}

    def zero_initialised(self) -> tuple[str, ...]:
        return ("gate",)

    def merged_delta(self) -> Tensor:
        return self.B @ (self.gate.unsqueeze(1) * self.A)


class Blended(RankGated):
    """Two such deltas that trained numbers, called `blend`, weighs."""

    router_parameters = ("blend",)

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.blend = nn.ParameterList([torch.zeros(1), torch.zeros(2)])
