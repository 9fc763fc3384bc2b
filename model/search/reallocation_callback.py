"""Dynamic reallocation: every N batches choose again which modules are on; each decision is written at once.

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956), dynamic reallocation.
Differs: modules are scored in evaluation mode, on the same batches by all processes; ties are broken by a
generator of the decision's own; a module that is switched off within an accumulation window loses its
accumulated gradient.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from configs.runtime.faults import NonFiniteFault
from configs.runtime.files import write_text
from configs.runtime.seeds import draws
from model.injection.attachment import Attachment
from model.search.budget import Budget
from model.search.history import History, Reallocation, frequency, frequency_text, history_text
from model.site import SiteKey
from model.training.distributed.agreement import require_agreement
from model.training.learners.finetune import FineTuner, fine_tuner


@dataclass(frozen=True)
class Search:
    """What a reallocation needs.

    Args:
        modules: the eligible attachments, in order.
        score: (trainer, learner, number of the decision) -> the score of every eligible module.
        budget: which of them are on, given the scores.
        every: batches of a process from one decision to the next.
        seed: the run's seed.
        metadata: facts at the top of the history.
    """

    modules: Mapping[SiteKey, Attachment]
    score: Callable[[L.Trainer, FineTuner, int], Mapping[SiteKey, float]]
    budget: Budget
    every: int
    seed: int
    metadata: Mapping[str, Any]


class ReallocationCallback(L.Callback):
    """Reallocate at the start of every batch whose number within its epoch is a multiple of `search.every`.

    Args:
        search: what is decided, and how.
        folder: where `history.toml` and `frequency.toml` are written.

    Attributes:
        decided: the decisions so far.
        seconds: time that they took.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        self.search = search
        self.folder = folder
        self.decided: list[Reallocation] = []
        self.seconds = 0.0

    @property
    def history(self) -> History:
        """All decisions so far."""
        return History(tuple(self.decided), self.search.metadata)

    @property
    def state_key(self) -> str:
        """The name that holds this callback's state in a checkpoint; it outlives the class's name."""
        return "Reallocations"

    def state_dict(self) -> dict[str, Any]:
        """Return all decisions; the tie generator's state is their number."""
        return {"reallocations": [_plain(one) for one in self.decided]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the decisions."""
        self.decided = [_reallocation(one) for one in state_dict["reallocations"]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the files as the checkpoint knows them."""
        if self.decided:
            self._write(trainer)
        elif trainer.is_global_zero:
            for name in ("history.toml", "frequency.toml"):
                (self.folder / name).unlink(missing_ok=True)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Decide when it is due.

        Raises:
            NonFiniteFault: when a score is NaN or infinite, naming the decision.
            SystemFault: when processes decide differently.
        """
        if batch_idx % self.search.every == 0:
            begin = time.perf_counter()
            self._decide(trainer, fine_tuner(pl_module), batch_idx)
            self.seconds += time.perf_counter() - begin

    def _decide(self, trainer: L.Trainer, learner: FineTuner, batch_idx: int) -> None:
        number, modules = len(self.decided), self.search.modules
        before = {key: attachment.enabled for key, attachment in modules.items()}
        for key in modules:
            _switch(modules[key], True)
        try:
            scores = dict(self.search.score(trainer, learner, number))
        except NonFiniteFault as fault:
            where = f"reallocation {number}, after step {trainer.global_step}"
            raise NonFiniteFault(*(f"{where}: {line}" for line in fault.lines)) from None
        on = self.search.budget.choose(scores, draws(self.search.seed, "ties", number))
        require_agreement(trainer, [key in on for key in modules], f"reallocation {number}")
        for key, attachment in modules.items():
            _switch(attachment, key in on)
            if before[key] and key not in on:  # drop the gradient of an accumulation window
                for parameter in attachment.adapter.parameters():
                    parameter.grad = None
        self.decided.append(Reallocation(trainer.current_epoch, batch_idx, scores, on))
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
            write_text(self.folder / "history.toml", history_text(self.history))
            write_text(self.folder / "frequency.toml", frequency_text(frequency(self.history)))


def _switch(attachment: Attachment, on: bool) -> None:
    if attachment.enabled != on:
        attachment.enabled = on


def _plain(one: Reallocation) -> dict[str, Any]:
    items = [[key.layer, key.role, one.scores[key], key in one.on] for key in sorted(one.scores)]
    return {"epoch": one.epoch, "step": one.step, "modules": items}


def _reallocation(state: Mapping[str, Any]) -> Reallocation:
    scores = {SiteKey(layer, role): score for layer, role, score, _ in state["modules"]}
    on = frozenset(SiteKey(layer, role) for layer, role, _, is_on in state["modules"] if is_on)
    return Reallocation(state["epoch"], state["step"], scores, on)
