"""The contract of a heuristic: one saliency score per attached module; nothing it uses stays changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.injection.attachment import Attachment
from model.site import SiteKey
from model.training.objective import Batch, Objective

Item = TypeVar("Item")


class Progress(Protocol):
    """Shows the progress through a sequence."""

    def __call__(self, items: Sequence[Item], what: str) -> Iterable[Item]:
        """Return the items in order, counting those that were taken."""
        ...


def _identity(value: Tensor) -> Tensor:
    return value


def _no_progress(items: Sequence[Item], what: str) -> Iterable[Item]:
    return items


def _ignore(*arguments: Any) -> None:
    pass


@dataclass(frozen=True)
class Probe:
    """What a heuristic may use.

    Args:
        network: the host with its adapters attached, in evaluation mode.
        objective: loss and metrics of the task.
        attachments: the modules to score; all of them are on.
        batches: this process's share of the batches, on its device.
        metric: name of the metric that evaluates the network.
        maximise: its direction.
        options: an instance of the kind's own `options` class.
        reduce: sums a tensor over all processes.
        precision: returns the context that forward passes run in, e.g. autocast.
        known: scores of an earlier attempt that was interrupted.
        found: (site, score) -> None; called after every module by heuristics that score one by one.
        note: (name, value) -> None; adds a fact to the score file.
        progress: (items, what) -> items; shows progress.
    """

    network: PreTrainedModel
    objective: Objective
    attachments: Mapping[SiteKey, Attachment]
    batches: Sequence[Batch]
    metric: str = "loss"
    maximise: bool = False
    options: Any = None
    reduce: Callable[[Tensor], Tensor] = _identity
    precision: Callable[[], AbstractContextManager] = nullcontext
    known: Mapping[SiteKey, float] = field(default_factory=dict)
    found: Callable[[SiteKey, float], None] = _ignore
    note: Callable[[str, Any], None] = _ignore
    progress: Progress = _no_progress

    @property
    def device(self) -> torch.device:
        """The network's device."""
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
        options: dataclass whose fields are names of command-line options.
        max_batches: most batches it reads; None for as many as the run asks for.
        random_b: whether a static test draws B at random for it, because its scores are zero where B = 0.
        trains_first: whether a static test trains the adapters before it scores them.
        mixes_validation: whether a search while training scores on alternating training and validation
            examples.
    """

    score: Callable[[Probe], Mapping[SiteKey, float]]
    options: type = NoOptions
    max_batches: int | None = None
    random_b: bool = False
    trains_first: bool = False
    mixes_validation: bool = False
