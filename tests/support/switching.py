"""A tiny network in training, whose modules a search switches as scripted: for tests of searches."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from model.search.budget import Budget
from model.search.reallocation_callback import ReallocationCallback, Search
from model.site import SiteKey
from model.training.learners.finetune import FineTuner
from model.training.optimizer import OptimizerSettings
from tests.contracts.test_every_heuristic import Scored

RECIPE = OptimizerSettings("adamw", 0.01, 0.01, 0.1, "none", 0.0, 0.0)


def scene(**changes: Any) -> tuple[Scored, FineTuner]:
    """Return a tiny LLaMA with LoRA at all of its sites, without dropout, and a learner of it."""
    scored = Scored(**{"dropout": 0.0, **changes})
    learner = FineTuner(
        scored.network,
        scored.attachments,
        head=(),
        objective=scored.objective,
        optimizer_settings=RECIPE,
        evaluations=(),
    )
    return scored, learner


def scripted(
    scored: Scored, decisions: Sequence[Collection[SiteKey]], every: int, folder: Path
) -> ReallocationCallback:
    """Return a callback whose decision k is the k-th of the given ones; all are of one size."""
    keys = sorted(scored.attachments)

    def score(trainer: Any, learner: FineTuner, number: int) -> Mapping[SiteKey, float]:
        return {key: float(key in decisions[number]) for key in keys}

    budget = Budget(dict.fromkeys(keys, 1), len(decisions[0]) / len(keys), "off")
    return ReallocationCallback(Search(scored.attachments, score, budget, every, 0, {}), folder)


def train(
    learner: FineTuner, batches: Sequence[Any], *callbacks: L.Callback, accumulate: int = 1
) -> L.Trainer:
    """Train an epoch of the batches with nothing but the callbacks."""
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **quiet,
    )
    trainer.fit(learner, train_dataloaders=DataLoader(list(batches), batch_size=None))
    return trainer
