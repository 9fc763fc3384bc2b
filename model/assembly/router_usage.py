"""Record the mean weight of each expert and the mean entropy of the weights, router by router.

Nothing is recorded, at no cost, outside `with RouterRecorder(...)`. Sums stay on their device until the
means are asked for.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.injection.attachment import Attachment
from model.search.allocation import rounded
from model.site import SiteKey

Key = TypeVar("Key")
MOST_DRAWN = 8
"""Experts that pictures show."""
TYPES = "types"
"""The table of the means by type of task."""


@dataclass(frozen=True)
class RouterUsage:
    """How one router weighed its N experts, on average over tokens.

    Args:
        weights: mean weight of each expert (N); they sum to 1.
        entropy: mean of -sum w log w, in nats: log N where all weights are equal, 0 where one is 1.
        tokens: how many were counted, padding left out.
    """

    weights: tuple[float, ...]
    entropy: float
    tokens: int

    @property
    def normalised_entropy(self) -> float:
        """The entropy as a share of log N, its maximum; NaN for one expert."""
        return self.entropy / math.log(len(self.weights)) if len(self.weights) > 1 else math.nan


class Routed(Protocol):
    """An adapter with a router.

    Attributes:
        router: (N, D_in), for N experts.
        observer: is called with the weights (tokens, N) of every forward pass.
    """

    router: Tensor
    observer: Callable[[Tensor], None] | None


def has_router(adapter: Any) -> TypeGuard[Routed]:
    """Return whether an adapter weighs its parts token by token."""
    return getattr(adapter, "router", None) is not None


class Observed(Protocol):
    """What reports its weights in every forward pass.

    Attributes:
        observer: is called with them.
    """

    observer: Callable[[Tensor], None] | None


class PassRecorder(ABC, Generic[Key]):
    """Record the weights that parts of a network report while it computes.

    Args:
        network: the host; the `attention_mask` of its forward passes marks padding.
        watched: what reports weights, by the key they are recorded under.
    """

    def __init__(self, network: nn.Module, watched: Mapping[Key, Observed]) -> None:
        self.network = network
        self._watched = watched
        self._mask: Tensor | None = None
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Self:
        """Start recording."""
        self._hook = self.network.register_forward_pre_hook(self._keep_mask, with_kwargs=True)
        for key, one in self._watched.items():
            one.observer = partial(self._add, key)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop recording; the sums are kept."""
        if self._hook is not None:
            self._hook.remove()
        for one in self._watched.values():
            one.observer = None

    def _keep_mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._mask = kwargs.get("attention_mask")

    @abstractmethod
    def _add(self, key: Key, weights: Tensor) -> None:
        """Add one forward pass."""


class RouterRecorder(PassRecorder[SiteKey]):
    """Record the weights of a network's routers while it computes; padding is not counted.

    Args:
        network: the host; the `attention_mask` of its forward passes marks padding.
        attachments: by site; those that are off or have no router are ignored.
    """

    def __init__(self, network: nn.Module, attachments: Mapping[SiteKey, Attachment]) -> None:
        self.routed: dict[SiteKey, Routed] = {}
        for key, attachment in attachments.items():
            adapter = attachment.adapter
            if attachment.active and has_router(adapter):
                self.routed[key] = adapter
        super().__init__(network, self.routed)
        self.group = ""
        """Name of what is computed now, for example an evaluation set; each group has sums of its own."""
        self._sums: dict[_SumKey, Tensor] = {}
        self._types: dict[str, Tensor] = {}

    def set_types(self, types: Sequence[str]) -> None:
        """Set the type of task of each row of the next forward passes; empty where they have none."""
        kinds = dict.fromkeys(types)
        self._types = {kind: torch.tensor([float(one == kind) for one in types]) for kind in kinds}

    def usage(self) -> dict[str, dict[SiteKey, RouterUsage]]:
        """Return the means by group and site."""
        found: dict[str, dict[SiteKey, RouterUsage]] = {}
        for (group, kind, site), sums in self._sums.items():
            if kind is None and sums[-1]:
                found.setdefault(group, {})[site] = _usage(sums)
        return found

    def usage_by_type(self) -> dict[str, dict[str, dict[SiteKey, RouterUsage]]]:
        """Return the means over the rows of each type of task, by group, type and site."""
        found: dict[str, dict[str, dict[SiteKey, RouterUsage]]] = {}
        for (group, kind, site), sums in self._sums.items():
            if kind is not None and sums[-1]:
                found.setdefault(group, {}).setdefault(kind, {})[site] = _usage(sums)
        return found

    def sum_over_processes(
        self, groups: Mapping[str, Sequence[str]], all_reduce: Callable[[Tensor], Tensor]
    ) -> None:
        """Sum over all processes; each of them calls this with the same groups.

        Args:
            groups: every group that any process may have recorded -> the types of its rows.
            all_reduce: sums a tensor over all processes.
        """
        keys = [
            _SumKey(group, kind, site)
            for group, kinds in groups.items()
            for kind in (None, *kinds)
            for site in self.routed
        ]
        width = 2 + max(len(adapter.router) for adapter in self.routed.values())
        device = next(iter(self.routed.values())).router.device
        sums = torch.zeros(len(keys), width, dtype=torch.float64, device=device)
        for row, key in zip(sums, keys):
            own = self._sums.get(key)
            if own is not None:
                row[: len(own)] = own
        sums = all_reduce(sums)
        lengths = [2 + len(self.routed[key.site].router) for key in keys]
        self._sums = {key: row[:length] for key, row, length in zip(keys, sums, lengths)}

    def _add(self, key: SiteKey, weights: Tensor) -> None:
        """Add one forward pass. weights: (tokens, N)."""
        weights, mask = weights.double(), self._mask
        if mask is not None and mask.numel() == len(weights):
            counts = mask.flatten().to(weights)
        else:
            counts = weights.new_ones(len(weights))
        entropy = torch.special.entr(weights).sum(1, keepdim=True)
        rows = torch.cat([weights, entropy, torch.ones_like(entropy)], 1)  # (tokens, N + 2)
        self._sum(_SumKey(self.group, None, key), counts @ rows)
        for kind, is_own in self._types.items():
            each = is_own.to(counts).repeat_interleave(len(counts) // len(is_own))  # (tokens)
            self._sum(_SumKey(self.group, kind, key), (counts * each) @ rows)

    def _sum(self, key: "_SumKey", row: Tensor) -> None:
        before = self._sums.get(key)
        self._sums[key] = row if before is None else before + row


class _SumKey(NamedTuple):
    """What a sum is over: the rows of a group, of one type or (None) all of them, at a site."""

    group: str
    kind: str | None
    site: SiteKey


def _usage(sums: Tensor) -> RouterUsage:
    """Return the means that follow from the sums of weights, entropy and tokens. sums: (N + 2)."""
    *weights, entropy, tokens = sums.tolist()
    return RouterUsage(tuple(weight / tokens for weight in weights), entropy / tokens, int(tokens))


def usage_text(
    usage: Mapping[str, Mapping[SiteKey, RouterUsage]],
    by_type: Mapping[str, Mapping[str, Mapping[SiteKey, RouterUsage]]] | None = None,
) -> str:
    """Return `router_usage.toml`: a table for each group, layer and role.

    Args:
        usage: group -> site -> means.
        by_type: group -> type of task -> site -> means; their tables begin with `types.GROUP.TYPE`.
    """
    tables: dict[str, Any] = {group: _tables(sites) for group, sites in usage.items()}
    if by_type:
        tables[TYPES] = {
            group: {kind: _tables(sites) for kind, sites in kinds.items()} for group, kinds in by_type.items()
        }
    return toml_text(tables)


def _tables(sites: Mapping[SiteKey, RouterUsage]) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for key, one in sites.items():
        weights = [rounded(weight) for weight in one.weights]
        facts = {"weights": weights, "entropy": rounded(one.entropy), "tokens": one.tokens}
        tables.setdefault(f"layer_{key.layer}", {})[key.role] = facts
    return tables


def usage_panels(sites: Mapping[SiteKey, RouterUsage]) -> list[Panel]:
    """Return the heat maps of a group: entropy as a share of log N, then the mean weight of each expert.

    All groups and all experts have the same scale of colours: the middle one means 1 / N, an even
    weight, the darkest for 2 / N and more.
    """
    entropy = {key: one.normalised_entropy for key, one in sites.items() if len(one.weights) > 1}
    panels = [Panel("entropy / log N", entropy, limits=(0.0, 1.0))] if entropy else []
    most = max(len(one.weights) for one in sites.values())
    for number in range(min(most, MOST_DRAWN)):
        weights = {key: one.weights[number] for key, one in sites.items() if len(one.weights) > number}
        panels.append(Panel(f"weight of B{number}", weights, limits=(0.0, min(1.0, 2 / most))))
    return panels
