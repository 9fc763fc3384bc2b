"""Record how routers weigh their experts: the mean weight of each and the mean entropy, module by module.

Nothing is recorded, and nothing costs anything, outside `with RouterRecord(...)`. Sums stay on their device
until they are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from configs.toml_text import toml_text
from model.allocation import rounded
from model.attachment import Attachment
from model.heat_maps import Panel
from model.site import SiteKey

MOST_DRAWN = 8
"""Experts that get a map of their own."""


@dataclass(frozen=True)
class Usage:
    """How one router weighed its experts.

    Args:
        weights: mean weight of each expert; they sum to 1.
        entropy: mean over tokens of -sum w log w, in nats: log N where all weigh alike, 0 where one has all.
        tokens: how many were counted.
    """

    weights: tuple[float, ...]
    entropy: float
    tokens: int


class RouterRecord:
    """Listen to the routers of a network while it computes; padding is not counted.

    Args:
        network: the host; its forward passes tell by `attention_mask` which tokens are padding.
        attachments: by site; those without a router are passed over.
    """

    def __init__(self, network: nn.Module, attachments: Mapping[SiteKey, Attachment]) -> None:
        self.network = network
        self.routed = {
            key: one.adapter
            for key, one in attachments.items()
            if one.active and getattr(one.adapter, "router", None) is not None
        }
        self.group = ""
        """What is being computed now, for example an evaluation set; sums are kept apart by it."""
        self._sums: dict[tuple[str, SiteKey], Tensor] = {}
        self._mask: Tensor | None = None
        self._hook: Any = None

    def __enter__(self) -> "RouterRecord":
        """Begin to listen."""
        self._hook = self.network.register_forward_pre_hook(self._remember, with_kwargs=True)
        for key, adapter in self.routed.items():
            adapter.observer = partial(self._add, key)
        return self

    def __exit__(self, *_: Any) -> None:
        """Listen no more; what was heard is kept."""
        self._hook.remove()
        for adapter in self.routed.values():
            adapter.observer = None

    def usage(self) -> dict[str, dict[SiteKey, Usage]]:
        """Return what was heard, by group and site."""
        found: dict[str, dict[SiteKey, Usage]] = {}
        for (group, key), sums in self._sums.items():
            *weights, entropy, tokens = sums.tolist()
            if tokens:
                mean = tuple(weight / tokens for weight in weights)
                found.setdefault(group, {})[key] = Usage(mean, entropy / tokens, int(tokens))
        return found

    def _remember(self, module: nn.Module, positional: tuple, named: Mapping[str, Any]) -> None:
        self._mask = named.get("attention_mask")

    def _add(self, key: SiteKey, weights: Tensor) -> None:
        """Add one forward pass. weights: (tokens, N)."""
        weights, mask = weights.double(), self._mask
        is_known = mask is not None and mask.numel() == len(weights)
        counts = mask.flatten().to(weights) if is_known else weights.new_ones(len(weights))
        entropy = torch.special.entr(weights).sum(1, keepdim=True)
        row = counts @ torch.cat([weights, entropy, torch.ones_like(entropy)], 1)
        before = self._sums.get((self.group, key))
        self._sums[self.group, key] = row if before is None else before + row


def usage_text(usage: Mapping[str, Mapping[SiteKey, Usage]]) -> str:
    """Return the TOML of a record: a table for each group, layer and role."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for group, sites in usage.items():
        for key, one in sites.items():
            weights = [rounded(weight) for weight in one.weights]
            facts = {"weights": weights, "entropy": rounded(one.entropy), "tokens": one.tokens}
            tables.setdefault(group, {}).setdefault(f"layer_{key.layer}", {})[key.role] = facts
    return toml_text(tables)


def usage_panels(sites: Mapping[SiteKey, Usage]) -> list[Panel]:
    """Return the maps of a group: entropy as a share of log N, then the mean weight of each expert.

    All groups and all experts have the same colours: an even weight, 1 / N, has the middle one, 2 / N and
    more the darkest.
    """
    spread = {
        key: one.entropy / torch.tensor(float(len(one.weights))).log().item()
        for key, one in sites.items()
        if len(one.weights) > 1
    }
    panels = [Panel("entropy / log N", spread, limits=(0.0, 1.0))] if spread else []
    most = max(len(one.weights) for one in sites.values())
    for number in range(min(most, MOST_DRAWN)):
        weights = {key: one.weights[number] for key, one in sites.items() if len(one.weights) > number}
        panels.append(Panel(f"weight of B{number}", weights, limits=(0.0, min(1.0, 2 / most))))
    return panels
