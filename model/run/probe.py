"""Give a heuristic what it needs of a run: network, batches, metric, the sum over processes."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import lightning as L

from configs.runtime import console
from configs.runtime.console import is_quiet
from configs.schema.options import Options
from model.run.job import Job
from model.search.heuristic import HeuristicKind, Probe
from model.site import SiteKey
from model.training.learners.finetune import FineTuner
from model.training.objective import Batch


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a search passes to a heuristic that reports while it works.

    Args:
        known: scores of an earlier attempt that was interrupted.
        found: (site, score) -> None, called after each score.
        note: (name, value) -> None, called with a fact for the score file.
    """

    known: Mapping[SiteKey, float] = dataclasses.field(default_factory=dict)
    found: Callable[[SiteKey, float], None] = lambda key, score: None
    note: Callable[[str, Any], None] = lambda name, value: None


def batches_read(job: Job, kind: HeuristicKind, whole: int | None = None) -> Callable[[int], int]:
    """Return how many batches a heuristic reads, given how many there are.

    Args:
        job: the run, with `--imp-limit-test-batches`.
        kind: the heuristic, which may read fewer.
        whole: the number of batches that a ratio is a share of; None: of those there are.
    """

    def limit(total: int) -> int:
        asked = min(job.options.imp_limit_test_batches.of(total if whole is None else whole), total)
        return asked if kind.max_batches is None else min(asked, kind.max_batches)

    return limit


def random_b_seed(options: Options, kind: HeuristicKind) -> int | None:
    """Return the seed of a static test's random B, or None where the weights are scored as they are."""
    start = options.score_init or ("random_b" if kind.random_b else "as_is")
    return options.seed if start == "random_b" else None


def probe_of(
    job: Job,
    trainer: L.Trainer,
    learner: FineTuner,
    kind: HeuristicKind,
    batches: Sequence[Batch],
    *,
    keys: Collection[SiteKey] | None = None,
    hooks: Hooks | None = None,
) -> Probe:
    """Return what a heuristic is given to score modules that are on.

    The metric is the one that chooses the best step; for a language model it is the perplexity.

    Args:
        job: the run.
        trainer: gives device, precision and processes.
        learner: the network and its attachments.
        kind: the heuristic.
        batches: this process's share; they are moved to the trainer's device.
        keys: the modules that are scored; None for every one that is on.
        hooks: for a heuristic that reports while it works.
    """
    hooks = hooks or Hooks()
    scored = {key: one for key, one in learner.attachments.items() if one.active}
    fields = (field.name for field in dataclasses.fields(kind.options))
    is_language = job.task.objective == "language_modeling"
    return Probe(
        network=learner.network,
        objective=learner.objective,
        attachments={key: one for key, one in scored.items() if keys is None or key in keys},
        batches=[trainer.strategy.batch_to_device(batch) for batch in batches],
        metric="perplexity" if is_language else job.task.selection,
        maximise=not is_language and job.task.maximise,
        options=kind.options(**{name: getattr(job.options, name) for name in fields}),
        reduce=lambda value: trainer.strategy.reduce(value, reduce_op="sum"),
        precision=trainer.precision_plugin.forward_context,
        known=hooks.known,
        found=hooks.found,
        note=hooks.note,
        progress=lambda items, what: items if is_quiet() else console.progress(items, what),
    )
