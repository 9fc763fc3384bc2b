"""Let matrices stop training, one after the other; what was decided is written at once.

Source: Liu et al. 2024 (AFLoRA), arXiv 2403.13269, and the published code; rule: `freezing.sensitivity`.
Differs: a matrix that is frozen at a step takes no part in that step's update, where the code's optimiser
moves it once more, its gradient being there already. Gradients are looked at before they are clipped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import nn

from configs.runtime.files import write_text
from model.freezing.record import Course, Decision, Matrix, decisions_of, freezing_text, plain
from model.freezing.sensitivity import Sensitivity, Stop, decide
from model.plan.freezing_rule import Freezing, RunLength
from model.training.distributed.agreement import require_agreement


class Held(NamedTuple):
    """Where a matrix is: its adapter and the parameter itself."""

    adapter: nn.Module
    parameter: nn.Parameter


class FreezingCallback(L.Callback):
    """Score matrices behind every backward pass and freeze them as the rule says.

    Args:
        rule: when matrices may stop.
        matrices: those that train, in order.
        still: those that never do.
        start: parameters that train at the beginning, the head left out.
        folder: where `freezing.toml` goes.
    """

    def __init__(
        self,
        rule: Freezing,
        matrices: Mapping[Matrix, Held],
        *,
        still: Sequence[Matrix],
        start: int,
        folder: Path,
    ) -> None:
        self.rule = rule
        self.matrices = dict(matrices)
        self.still = tuple(still)
        self.start = start
        self.folder = folder
        self.decided: tuple[Decision, ...] = ()
        self.length: RunLength | None = None
        self._sensitivities = {
            matrix: Sensitivity.of(held.parameter) for matrix, held in self.matrices.items() if rule.by_score
        }

    @property
    def course(self) -> Course:
        """All decisions so far."""
        total = 0 if self.length is None else self.length.steps
        elements = sum(held.parameter.numel() for held in self.matrices.values())
        return Course(total, self.start, self.still, tuple(self.matrices), elements, self.decided)

    def remaining(self) -> dict[Matrix, Held]:
        """Return the matrices that still train."""
        return {
            matrix: held for matrix, held in self.matrices.items() if matrix.factor not in held.adapter.frozen
        }

    @property
    def state_key(self) -> str:
        """The name that holds this callback's state in a checkpoint; it outlives the class's name."""
        return "Freezings"

    def state_dict(self) -> dict[str, Any]:
        """Return decisions, the planned length, and what is remembered of matrices that still train."""
        return {
            "length": None if self.length is None else list(vars(self.length).values()),
            "decisions": plain(self.course),
            "sensitivities": {str(matrix): vars(one) for matrix, one in self._sensitivities.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them over, and freeze what is frozen."""
        self.length = None if state_dict["length"] is None else RunLength(*state_dict["length"])
        self.decided = decisions_of(state_dict["decisions"])
        for one in self.decided:
            for matrix in one.stopped:
                self._still(matrix)
        for matrix, one in self._sensitivities.items():
            for name, tensor in state_dict["sensitivities"][str(matrix)].items():
                getattr(one, name).copy_(tensor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn how long the run is; cut the file back to the checkpoint."""
        if self.length is None:
            self.length = RunLength(int(trainer.estimated_stepping_batches), int(trainer.max_epochs))
        for matrix, one in self._sensitivities.items():
            for name, tensor in vars(one).items():
                setattr(one, name, tensor.to(self.matrices[matrix].parameter.device))
        self._write(trainer)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradients of a whole window, summed over processes; decide when it is time."""
        step, remaining = trainer.global_step, self.remaining()
        if not remaining:
            return
        for matrix, one in self._sensitivities.items():
            gradient = remaining[matrix].parameter.grad
            magnitude = torch.zeros_like(one.window) if gradient is None else gradient.abs()
            place = step % self.rule.window_steps
            one.observe(magnitude, place, self.rule.sensitivity_decay, self.rule.uncertainty_decay)
        if self.rule.decides(step, self.length):
            self._decide(trainer, optimizer, step)

    def _decide(self, trainer: L.Trainer, optimizer: torch.optim.Optimizer, step: int) -> None:
        share, remaining = self.rule.share(step, self.length), self.remaining()
        stop = self._stop(share, remaining)
        require_agreement(trainer, [str(one) in stop.names for one in remaining], f"freezing at step {step}")
        if not stop.names:
            return
        stopped = tuple(matrix for matrix in remaining if str(matrix) in stop.names)
        gone = sum(remaining[matrix].parameter.numel() for matrix in stopped)
        for matrix in stopped:
            self._still(matrix)
            remaining[matrix].parameter.grad = None
            optimizer.state.pop(remaining[matrix].parameter, None)  # its moments are of no use any more
        self.decided += (Decision(step, share, stop.threshold, stopped, self.course.end - gone),)
        self._write(trainer)

    def _stop(self, share: float, remaining: Mapping[Matrix, Held]) -> Stop:
        if not self.rule.by_score:
            return Stop(tuple(map(str, remaining)), None)
        gone = 0
        if self.rule.pool == "initial":
            gone = sum(h.parameter.numel() for matrix, h in self.matrices.items() if matrix not in remaining)
        return decide({str(m): one.score() for m, one in self._sensitivities.items()}, share, gone)

    def _still(self, matrix: Matrix) -> None:
        self.matrices[matrix].adapter.frozen.add(matrix.factor)
        self._sensitivities.pop(matrix, None)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
            write_text(self.folder / "freezing.toml", freezing_text(self.course))
