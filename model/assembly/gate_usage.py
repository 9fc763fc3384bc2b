"""Record how the gates of fused sets weigh them: mean and spread by layer, and by position in a text.

Nothing is recorded, at no cost, outside `with GateRecorder(...)`. Sums stay on their device until the means
are asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.toml.writer import toml_text
from model.adapters.gate import Gate
from model.assembly.router_usage import PassRecorder
from model.injection.attachment import Attachment
from model.site import SiteKey

POSITIONS = 512
"""Tokens of a text, from its first, whose weights are recorded by position."""


@dataclass(frozen=True)
class GateUsage:
    """How the sets were weighed in one layer, or at one position: mean and standard deviation of each (k)."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    tokens: int


class GateRecorder(PassRecorder[int]):
    """Record the weights of a network's gates while it computes; padding is not counted.

    Args:
        network: the host; the `attention_mask` of its forward passes marks padding.
        attachments: by site; those without a gate are ignored.
    """

    def __init__(self, network: nn.Module, attachments: Mapping[SiteKey, Attachment]) -> None:
        self.gates: dict[int, Gate] = {}
        for key, attachment in attachments.items():
            gate = getattr(attachment.adapter, "gate", None)
            if gate is not None and not gate.is_fixed:
                self.gates.setdefault(key.layer, gate)
        super().__init__(network, self.gates)
        self._layers: dict[int, Tensor] = {}
        self._positions: Tensor | None = None

    def sum_over_processes(self, all_reduce: Callable[[Tensor], Tensor]) -> None:
        """Sum over all processes; each of them calls this."""
        gate = next(iter(self.gates.values()))
        blank = torch.zeros(2 * gate.sets + 1, dtype=torch.float64, device=gate.b.device)
        stacked = torch.stack([self._layers.get(layer, blank) for layer in self.gates])
        places = blank.expand(POSITIONS, -1) if self._positions is None else self._positions
        summed = all_reduce(torch.cat([stacked, places]))
        self._layers = dict(zip(self.gates, summed))
        self._positions = summed[len(self.gates) :]

    def by_layer(self) -> dict[int, GateUsage]:
        """Return the means over tokens, by layer."""
        return {layer: _usage(sums) for layer, sums in sorted(self._layers.items()) if sums[-1]}

    def by_position(self) -> list[GateUsage]:
        """Return the means over layers and texts, by position, as far as there were texts."""
        return [] if self._positions is None else [_usage(one) for one in self._positions if one[-1]]

    def _add(self, key: int, weights: Tensor) -> None:
        """Add one forward pass. weights: (B, T, k)."""
        weights, mask = weights.double(), self._mask
        if weights.ndim != 3 or mask is None or mask.shape != weights.shape[:2]:
            return  # a step of generation, whose mask is longer than its input
        counts = mask.to(weights).unsqueeze(-1)
        rows = torch.cat([weights * counts, weights**2 * counts, counts], -1)  # (B, T, 2 k + 1)
        total = rows.sum((0, 1))
        self._layers[key] = self._layers[key] + total if key in self._layers else total
        places = nn.functional.pad(rows.sum(0)[:POSITIONS], (0, 0, 0, max(POSITIONS - rows.shape[1], 0)))
        self._positions = places if self._positions is None else self._positions + places


def _usage(sums: Tensor) -> GateUsage:
    """Return the means of sums of w (k), w^2 (k) and tokens: (2 k + 1)."""
    *both, tokens = sums.tolist()
    count = len(both) // 2
    means = [value / tokens for value in both[:count]]
    squares = [value / tokens for value in both[count:]]
    spread = [math.sqrt(max(square - mean**2, 0.0)) for mean, square in zip(means, squares)]
    return GateUsage(tuple(means), tuple(spread), int(tokens))


def gates_text(layers: Mapping[int, GateUsage], names: Sequence[str]) -> str:
    """Return `gates.toml`: the sets' names, and for each layer mean and spread of their weights."""
    tables = {
        f"layer_{layer}": {
            "mean": [round(value, 6) for value in one.mean],
            "spread": [round(value, 6) for value in one.spread],
        }
        for layer, one in layers.items()
    }
    return toml_text({"sets": list(names), **tables})
