"""Build the search of a `train-dyrealloc` run from its options."""

from collections.abc import Mapping, Sequence

import lightning as L

from configs.runtime import console, kinds
from configs.runtime.faults import InputFault
from configs.runtime.seeds import draws
from model.run.job import Job
from model.run.probe import batches_read, probe_of
from model.search.budget import Budget, eligible
from model.search.heuristic import HeuristicKind
from model.search.reallocation_callback import Search
from model.search.saliency import all_equal, measure
from model.site import SiteKey
from model.training.learners.finetune import FineTuner
from model.training.objective import Batch

_GRID = {"alpha_test": {"max_alpha": 10}}
"""Heuristic -> what readers of a history must know about its scores."""


def budget_of(job: Job) -> Budget:
    """Return which modules the search may switch and how many of them are on.

    Raises:
        InputFault: when no module is eligible, or none would be on.
    """
    options, attachments = job.options, job.assembled.attachments
    # Modules that the checkpoint's run did not train are not eligible.
    known = None if job.checkpoint is None else job.checkpoint["switches"]
    keys = [
        key for key, one in attachments.items() if one.strength != 0 and (known is None or str(key) in known)
    ]
    chosen = eligible(keys, options.dyrealloc_ags_mode)
    if not chosen:
        raise InputFault("--lora-config: none of its modules has a rank and an importance above 0")
    sizes = {
        key: sum(p.numel() for p in attachments[key].adapter.parameters() if p.requires_grad)
        for key in chosen
    }
    budget = Budget(sizes, options.turn_on_percentile, options.dyrealloc_ags_mode, options.budget_params)
    budget.check()
    return budget


def search_of(job: Job, budget: Budget) -> Search:
    """Return the search of a run.

    Args:
        job: the run.
        budget: from `budget_of`.
    """
    options = job.options
    return Search(
        modules={key: job.assembled.attachments[key] for key in budget.sizes},
        score=_Scores(job, budget),
        budget=budget,
        every=options.realloc_N.of(_batches(job)),
        seed=options.seed,
        metadata=_GRID.get(options.importance_test_name, {}),
    )


def _batches(job: Job) -> int:
    """Return the batches of an epoch on each device, as published counts of batches mean them."""
    return job.data.batches_of_device(job.options.num_devices * job.options.nodes)


class _Scores:
    """Compute the scores of each reallocation.

    Args:
        job: the run.
        budget: has the eligible modules.
    """

    def __init__(self, job: Job, budget: Budget) -> None:
        self.job = job
        self.keys = frozenset(budget.sizes)
        self.warmup: HeuristicKind = kinds.load(kinds.HEURISTICS, "constant")
        name = job.options.importance_test_name
        self.kind: HeuristicKind = kinds.load(kinds.HEURISTICS, name)
        self._stored: Sequence[Batch] | None = None

    def __call__(self, trainer: L.Trainer, learner: FineTuner, number: int) -> Mapping[SiteKey, float]:
        """Return the score of every eligible module, while all of them are on.

        Args:
            trainer: gives device, precision and processes.
            learner: the network and its attachments.
            number: of the reallocation, from 0.
        """
        options = self.job.options
        is_warm = trainer.current_epoch >= options.constant_warmup_epochs
        kind = self.kind if is_warm else self.warmup
        batches = self._batches(kind, number)
        probe = probe_of(self.job, trainer, learner, kind, batches, keys=self.keys)
        seed = options.seed if options.score_init == "random_b" else None
        scores = measure(kind, probe, seed)
        if is_warm and options.importance_test_name != "constant" and all_equal(list(scores.values())):
            console.say(f"note: reallocation {number}: all scores are equal, so the choice is random")
        return scores

    def _batches(self, kind: HeuristicKind, number: int) -> Sequence[Batch]:
        if kind.max_batches == 0:
            return ()
        limit = batches_read(self.job, kind, whole=_batches(self.job))
        if kind.mixes_validation:
            return list(self.job.data.mixed_dataloader(limit, draws(self.job.options.seed, "mixed", number)))
        if self._stored is None:  # the same ones at every reallocation
            data = self.job.data
            self._stored = list(data.scoring_dataloader(data.scoring_batches(limit)))
        return self._stored
