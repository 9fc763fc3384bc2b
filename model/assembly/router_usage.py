"""Record how routers weigh their experts: the mean weight of each and the mean entropy, module by module.

Nothing is recorded, and nothing costs anything, outside `with RouterRecord(...)`. Sums stay on their device
until they are asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.injection.attachment import Attachment
from model.search.allocation import rounded
from model.site import SiteKey

MOST_DRAWN = 8
"""Experts that are drawn."""
TYPES = "types"
"""The table of what was heard by type of task."""


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

    @property
    def spread(self) -> float:
        """The entropy as a share of log N; NaN for one expert."""
        return self.entropy / math.log(len(self.weights)) if len(self.weights) > 1 else math.nan


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
        self._sums: dict[_Place, Tensor] = {}
        self._types: dict[str, Tensor] = {}
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

    def expect(self, types: Sequence[str]) -> None:
        """Say what sort of task each row of the next forward passes is; empty where nobody knows."""
        kinds = dict.fromkeys(types)
        self._types = {kind: torch.tensor([float(one == kind) for one in types]) for kind in kinds}

    def usage(self) -> dict[str, dict[SiteKey, Usage]]:
        """Return what was heard, by group and site."""
        found: dict[str, dict[SiteKey, Usage]] = {}
        for (group, kind, key), sums in self._sums.items():
            if kind is None and sums[-1]:
                found.setdefault(group, {})[key] = _usage(sums)
        return found

    def usage_by_type(self) -> dict[str, dict[str, dict[SiteKey, Usage]]]:
        """Return what was heard of rows whose types were told, by group, type and site."""
        found: dict[str, dict[str, dict[SiteKey, Usage]]] = {}
        for (group, kind, key), sums in self._sums.items():
            if kind is not None and sums[-1]:
                found.setdefault(group, {}).setdefault(kind, {})[key] = _usage(sums)
        return found

    def pool(self, groups: Mapping[str, Sequence[str]], total: Callable[[Tensor], Tensor]) -> None:
        """Add what all processes heard; each of them calls this with the same groups.

        Args:
            groups: every group that any process may have heard -> the types of its rows.
            total: sums a tensor over all processes.
        """
        places = [
            _Place(group, kind, key)
            for group, kinds in groups.items()
            for kind in (None, *kinds)
            for key in self.routed
        ]
        width = 2 + max(len(adapter.router) for adapter in self.routed.values())
        device = next(iter(self.routed.values())).router.device
        sums = torch.zeros(len(places), width, dtype=torch.float64, device=device)
        for row, place in zip(sums, places):
            own = self._sums.get(place)
            if own is not None:
                row[: len(own)] = own
        sums = total(sums)
        lengths = [2 + len(self.routed[place.key].router) for place in places]
        self._sums = {place: row[:length] for place, row, length in zip(places, sums, lengths)}

    def _remember(self, module: nn.Module, positional: tuple, named: Mapping[str, Any]) -> None:
        self._mask = named.get("attention_mask")

    def _add(self, key: SiteKey, weights: Tensor) -> None:
        """Add one forward pass. weights: (tokens, N)."""
        weights, mask = weights.double(), self._mask
        is_known = mask is not None and mask.numel() == len(weights)
        counts = mask.flatten().to(weights) if is_known else weights.new_ones(len(weights))
        entropy = torch.special.entr(weights).sum(1, keepdim=True)
        rows = torch.cat([weights, entropy, torch.ones_like(entropy)], 1)  # (tokens, N + 2)
        self._sum(_Place(self.group, None, key), counts @ rows)
        for kind, is_own in self._types.items():
            each = is_own.to(counts).repeat_interleave(len(counts) // len(is_own))  # (tokens)
            self._sum(_Place(self.group, kind, key), (counts * each) @ rows)

    def _sum(self, place: "_Place", row: Tensor) -> None:
        before = self._sums.get(place)
        self._sums[place] = row if before is None else before + row


class _Place(NamedTuple):
    """What a sum is of: a group, the rows of one type or (None) all of them, a site."""

    group: str
    kind: str | None
    key: SiteKey


def _usage(sums: Tensor) -> Usage:
    """Return the means of sums (N + 2): weights, entropy, tokens."""
    *weights, entropy, tokens = sums.tolist()
    return Usage(tuple(weight / tokens for weight in weights), entropy / tokens, int(tokens))


def usage_text(
    usage: Mapping[str, Mapping[SiteKey, Usage]],
    by_type: Mapping[str, Mapping[str, Mapping[SiteKey, Usage]]] | None = None,
) -> str:
    """Return the TOML of a record: a table for each group, layer and role.

    Args:
        usage: group -> site -> what was heard.
        by_type: group -> type of task -> site -> what was heard; their tables begin with `types.GROUP.TYPE`.
    """
    tables: dict[str, Any] = {group: _tables(sites) for group, sites in usage.items()}
    if by_type:
        tables[TYPES] = {
            group: {kind: _tables(sites) for kind, sites in kinds.items()} for group, kinds in by_type.items()
        }
    return toml_text(tables)


def _tables(sites: Mapping[SiteKey, Usage]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for key, one in sites.items():
        weights = [rounded(weight) for weight in one.weights]
        facts = {"weights": weights, "entropy": rounded(one.entropy), "tokens": one.tokens}
        tables.setdefault(f"layer_{key.layer}", {})[key.role] = facts
    return tables


def usage_panels(sites: Mapping[SiteKey, Usage]) -> list[Panel]:
    """Return the maps of a group: entropy as a share of log N, then the mean weight of each expert.

    All groups and all experts have the same colours: an even weight, 1 / N, has the middle one, 2 / N and
    more the darkest.
    """
    spread = {key: one.spread for key, one in sites.items() if len(one.weights) > 1}
    panels = [Panel("entropy / log N", spread, limits=(0.0, 1.0))] if spread else []
    most = max(len(one.weights) for one in sites.values())
    for number in range(min(most, MOST_DRAWN)):
        weights = {key: one.weights[number] for key, one in sites.items() if len(one.weights) > number}
        panels.append(Panel(f"weight of B{number}", weights, limits=(0.0, min(1.0, 2 / most))))
    return panels
