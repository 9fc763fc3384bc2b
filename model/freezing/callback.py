"""Freeze matrices while training, one after the other; every decision is written at once.

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, and the published code; scores: `freezing.sensitivity`,
schedule: `plan.freezing_rule`.
Differs: a matrix that is frozen at a step takes no part in that step's update, where the code's optimiser
updates it once more, as its gradient exists already. Gradients are read before they are clipped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import nn

from configs.runtime.files import write_text
from model.adapters.adapter import Adapter
from model.freezing.record import (
    Decision,
    FreezingHistory,
    Matrix,
    decisions_from_lists,
    decisions_to_lists,
    freezing_text,
)
from model.freezing.sensitivity import Selection, Sensitivity, select_frozen
from model.plan.freezing_rule import ByScore, Freezing, RunLength
from model.training.distributed.agreement import require_agreement


class FreezableParameter(NamedTuple):
    """The parameter of a matrix and the adapter that it belongs to."""

    adapter: Adapter
    parameter: nn.Parameter


class FreezingCallback(L.Callback):
    """Score matrices after every backward pass and freeze them as the rule decides.

    Args:
        rule: when matrices are frozen, and how many.
        matrices: those that train, in order.
        never_trained: those that are frozen from the beginning.
        trainable_start: parameters that train at the beginning, without the head.
        folder: where `freezing.toml` is written.
    """

    def __init__(
        self,
        rule: Freezing,
        matrices: Mapping[Matrix, FreezableParameter],
        *,
        never_trained: Sequence[Matrix],
        trainable_start: int,
        folder: Path,
    ) -> None:
        self.rule = rule
        self.matrices = dict(matrices)
        self.never_trained = tuple(never_trained)
        self.trainable_start = trainable_start
        self.folder = folder
        self.decided: tuple[Decision, ...] = ()
        self.length: RunLength | None = None
        self._scoring = rule if rule.rule == "score" else None
        self._sensitivities = {
            matrix: Sensitivity.zeros_like(owned.parameter)
            for matrix, owned in self.matrices.items()
            if self._scoring is not None
        }

    @property
    def history(self) -> FreezingHistory:
        """All decisions so far."""
        return FreezingHistory(
            total_steps=0 if self.length is None else self.length.steps,
            trainable_start=self.trainable_start,
            never_trained=self.never_trained,
            freezable=tuple(self.matrices),
            freezable_elements=sum(owned.parameter.numel() for owned in self.matrices.values()),
            decisions=self.decided,
        )

    def remaining(self) -> dict[Matrix, FreezableParameter]:
        """Return the matrices that still train."""
        return {
            matrix: owned
            for matrix, owned in self.matrices.items()
            if matrix.factor not in owned.adapter.frozen
        }

    def expected_share(self, step: int) -> float:
        """Return r(t), the share that the rule lets train at a step of this run."""
        return self.rule.share(step, self._planned_length())

    @property
    def state_key(self) -> str:
        """The name that holds this callback's state in a checkpoint; it outlives the class's name."""
        return "Freezings"

    def state_dict(self) -> dict[str, Any]:
        """Return decisions, the planned length, and the running averages of matrices that still train."""
        return {
            "length": None if self.length is None else [self.length.steps, self.length.epochs],
            "decisions": decisions_to_lists(self.decided),
            "sensitivities": {str(matrix): one.tensors() for matrix, one in self._sensitivities.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them, and freeze what was frozen."""
        self.length = None if state_dict["length"] is None else RunLength(*state_dict["length"])
        self.decided = decisions_from_lists(state_dict["decisions"])
        for decision in self.decided:
            for matrix in decision.frozen:
                self._freeze(matrix)
        for matrix, sensitivity in self._sensitivities.items():
            for name, tensor in state_dict["sensitivities"][str(matrix)].items():
                sensitivity.tensors()[name].copy_(tensor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note how long the run is; write the file as the checkpoint knows it."""
        if self.length is None:
            epochs = trainer.max_epochs or 0  # its option is never None
            self.length = RunLength(int(trainer.estimated_stepping_batches), epochs)
        for matrix, sensitivity in self._sensitivities.items():
            sensitivity.to(self.matrices[matrix].parameter.device)
        self._write(trainer)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Read the gradients of an accumulation window, averaged over processes; decide when it is due.

        Raises:
            SystemFault: when processes decide differently.
        """
        step, remaining = trainer.global_step, self.remaining()
        if not remaining:
            return
        if self._scoring is not None:
            self._observe(self._scoring, remaining, step)
        if self.rule.decides(step, self._planned_length()):
            self._decide(trainer, optimizer, step)

    def _planned_length(self) -> RunLength:
        assert self.length is not None, "on_train_start sets it"
        return self.length

    def _observe(self, rule: ByScore, remaining: Mapping[Matrix, FreezableParameter], step: int) -> None:
        for matrix, sensitivity in self._sensitivities.items():
            gradient = remaining[matrix].parameter.grad
            magnitude = torch.zeros_like(sensitivity.window) if gradient is None else gradient.abs()
            place = step % rule.window_steps
            sensitivity.observe(magnitude, place, rule.sensitivity_decay, rule.uncertainty_decay)

    def _decide(self, trainer: L.Trainer, optimizer: torch.optim.Optimizer, step: int) -> None:
        share, remaining = self.expected_share(step), self.remaining()
        selected = self._select(share, remaining)
        flags = [str(matrix) in selected.names for matrix in remaining]
        require_agreement(trainer, flags, f"freezing at step {step}")
        if not selected.names:
            return
        frozen = tuple(matrix for matrix in remaining if str(matrix) in selected.names)
        elements = sum(remaining[matrix].parameter.numel() for matrix in frozen)
        for matrix in frozen:
            self._freeze(matrix)
            remaining[matrix].parameter.grad = None
            optimizer.state.pop(remaining[matrix].parameter, None)  # its moments are not needed any more
        trainable = self.history.trainable_end - elements
        self.decided += (Decision(step, share, selected.threshold, frozen, trainable),)
        self._write(trainer)

    def _select(self, share: float, remaining: Mapping[Matrix, FreezableParameter]) -> Selection:
        if self._scoring is None:
            return Selection(tuple(map(str, remaining)), None)
        frozen = [owned for matrix, owned in self.matrices.items() if matrix not in remaining]
        in_pool = frozen if self._scoring.pool == "initial" else []
        scores = {str(matrix): one.score() for matrix, one in self._sensitivities.items()}
        return select_frozen(scores, share, sum(owned.parameter.numel() for owned in in_pool))

    def _freeze(self, matrix: Matrix) -> None:
        self.matrices[matrix].adapter.frozen.add(matrix.factor)
        self._sensitivities.pop(matrix, None)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
            write_text(self.folder / "freezing.toml", freezing_text(self.history))
