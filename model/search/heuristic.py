"""The contract of a heuristic: one number for each attached module, found without leaving a trace."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from model.injection.attachment import Attachment
from model.site import SiteKey
from model.training.objective import Batch, Objective


def _alone(value: Tensor) -> Tensor:
    return value


def _unwatched(items: Sequence[Any], what: str) -> Iterable[Any]:
    return items


def _forgotten(*arguments: Any) -> None:
    pass


@dataclass(frozen=True)
class Probe:
    """What a heuristic may look at.

    Args:
        network: the host with its adapters in place, in evaluation mode.
        objective: loss and metrics of the task.
        attachments: the modules to score; all of them are on.
        batches: this process's share of the batches, on its device.
        metric: name of the evaluation metric that tells how good the network is.
        maximise: its direction.
        options: the kind's own options.
        reduce: sums a tensor over all processes.
        precision: the context that forward passes run in.
        known: scores found by an earlier try that was broken off.
        found: (site, score) -> None; called after every module by heuristics that go module by module.
        note: (name, value) -> None; puts a fact into the score file.
        watch: (items, what) -> items; shows progress.
    """

    network: nn.Module
    objective: Objective
    attachments: Mapping[SiteKey, Attachment]
    batches: Sequence[Batch]
    metric: str = "loss"
    maximise: bool = False
    options: Any = None
    reduce: Callable[[Tensor], Tensor] = _alone
    precision: Callable[[], AbstractContextManager] = nullcontext
    known: Mapping[SiteKey, float] = field(default_factory=dict)
    found: Callable[[SiteKey, float], None] = _forgotten
    note: Callable[[str, Any], None] = _forgotten
    watch: Callable[[Sequence[Any], str], Iterable[Any]] = _unwatched

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


@dataclass(frozen=True)
class NoOptions:
    """A heuristic without options of its own."""


@dataclass(frozen=True)
class HeuristicKind:
    """What a file in `model/search/heuristics/` exports as `HEURISTIC`.

    Args:
        score: probe -> the score of every attachment; larger is more important. It need not round, check or
            restore anything: `model.search.saliency.measure` does.
        options: dataclass whose fields are options of the command line by name.
        most_batches: batches it reads at most; None for as many as asked.
        random_b: whether a static test draws B at random for it, because its scores vanish where B = 0.
        trains_first: whether a static test trains the adapters before it scores them.
        mixes_validation: whether a search while training scores on training and validation examples in turn.
    """

    score: Callable[[Probe], Mapping[SiteKey, float]]
    options: type = NoOptions
    most_batches: int | None = None
    random_b: bool = False
    trains_first: bool = False
    mixes_validation: bool = False
