"""Write `last.ckpt` and `best.ckpt`, resume from them exactly, and stop on a signal after saving."""

import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.loops.progress import _Progress

from configs.runtime.faults import Stopped
from model.tensors.random_state import random_states, restore_random_states
from model.training.learners.finetune import fine_tuner

_STOPS = (signal.SIGTERM, signal.SIGINT)
_REQUEUE = getattr(signal, "SIGUSR1", None)
"""What SLURM sends before a job's time is over; None on Windows."""
"""What SLURM sends some time before it ends a job."""


class Checkpoints(L.Callback):
    """Save at the boundaries of optimiser steps only, so that no accumulated gradient is ever lost.

    A checkpoint holds the position: epoch, batches done in it, optimiser steps. No checkpoint is written
    after an epoch's last batch; the epoch's checkpoint follows its evaluation, at position (epoch + 1, 0).

    Args:
        folder: where `last.ckpt` and `best.ckpt` are written.
        selection: name of the metric that chooses the best step, e.g. `val/accuracy`.
        maximise: its direction.
        every_steps: optimiser steps between checkpoints within an epoch; None for the epochs' ends only.
        max_steps: updates after which the run ends with an evaluation; -1 for no limit.
        facts: plain values stored in every checkpoint: the base, the data.
        before_save: trainer -> None; writes the metrics up to the step that is saved.

    Attributes:
        requeue: submits the SLURM job again, on the first process, after the checkpoint that SIGUSR1 asks
            for; None leaves that signal to its default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        selection: str,
        maximise: bool,
        every_steps: int | None,
        max_steps: int,
        facts: Mapping[str, Any],
        before_save: Callable[[L.Trainer], None],
    ) -> None:
        self.folder = folder
        self.selection = selection
        self.maximise = maximise
        self.every_steps = every_steps
        self.max_steps = max_steps
        self.facts = dict(facts)
        self.before_save = before_save
        self.requeue: Callable[[], None] | None = None
        self.best_value: float | None = None
        self.best_step = 0
        self._position = {"epoch": 0, "batches": 0, "steps": 0, "finished": False}
        self._resumed = False
        self._random: dict[str, Any] | None = None
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the best evaluation so far."""
        return {"best_value": self.best_value, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best evaluation."""
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Replace Lightning's loop counters by the position, and add every process's random states."""
        checkpoint.pop("loops", None)
        states: list[dict[str, Any]] = [{} for _ in range(trainer.world_size)]
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, random_states())
        else:
            states = [random_states()]
        checkpoint |= {"position": dict(self._position), "random": states, "facts": self.facts}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the random states for the first batch: set now, the set-up would draw from them."""
        self._resumed = True
        self._position = dict(checkpoint["position"])
        self._random = checkpoint["random"][trainer.global_rank]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle the signals here instead of in Lightning; save once before the first step."""
        stops = _STOPS if self.requeue is None or _REQUEUE is None else (*_STOPS, _REQUEUE)
        self._handlers = {number: signal.signal(number, self._note_signal) for number in stops}
        if not self._resumed:
            self._save(trainer, self.folder / "last.ckpt", epoch=0, batches=0)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the random states of a resumed run, just before its first batch draws from them."""
        if self._random is not None:
            restore_random_states(self._random)
            self._random = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when due; after a signal save and stop.

        Raises:
            Stopped: on every process, when one of them received a signal.
        """
        done = batch_idx + 1
        accumulate = trainer.accumulate_grad_batches
        if done >= trainer.num_training_batches or done % accumulate:
            return
        if trainer.global_step == self.max_steps:
            trainer.should_stop = True  # lets Lightning evaluate before it ends in the middle of an epoch
            return
        stop = self._agreed_signal(trainer)
        due = self.every_steps is not None and trainer.global_step % self.every_steps == 0
        if stop or due:
            self._save(trainer, self.folder / "last.ckpt", epoch=trainer.current_epoch, batches=done)
        if stop:
            self._stop(trainer, stop)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the best evaluation's weights; of equal ones the earliest is kept."""
        value = fine_tuner(pl_module).results[self.selection]
        if self._improves(value):
            self.best_value, self.best_step = value, trainer.global_step
            self._save(trainer, self.folder / "best.ckpt", epoch=trainer.current_epoch + 1, batches=0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the epoch's end; a signal received during its evaluation stops the run here.

        Raises:
            Stopped: on every process, when one of them received a signal.
        """
        finished = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        finished = finished or trainer.global_step == self.max_steps
        self._save(
            trainer, self.folder / "last.ckpt", epoch=trainer.current_epoch + 1, batches=0, finished=finished
        )
        stop = self._agreed_signal(trainer)
        if stop:
            self._stop(trainer, stop)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the signals' handlers."""
        self._release()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Restore the signals' handlers."""
        self._release()

    def _improves(self, value: float) -> bool:
        if math.isnan(value):
            return self.best_value is None
        if self.best_value is None or math.isnan(self.best_value):
            return True
        return value > self.best_value if self.maximise else value < self.best_value

    def _save(
        self, trainer: L.Trainer, path: Path, *, epoch: int, batches: int, finished: bool = False
    ) -> None:
        self.before_save(trainer)
        self._position = {
            "epoch": epoch,
            "batches": batches,
            "steps": trainer.global_step,
            "finished": finished,
        }
        if trainer.is_global_zero:
            path.parent.mkdir(exist_ok=True)
        trainer.save_checkpoint(path)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:  # a second signal ends the process, as its default would
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._signal = number

    def _agreed_signal(self, trainer: L.Trainer) -> int:
        """Return the signal that any process received, the same on all, or 0."""
        if trainer.world_size == 1:
            return self._signal or 0
        number = torch.tensor(self._signal or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        return int(number)

    def _stop(self, trainer: L.Trainer, number: int) -> NoReturn:
        """End the run, whose checkpoint is written; on SLURM's signal queue the job again first."""
        line = f"stopped by signal {number} after step {trainer.global_step}"
        if number == _REQUEUE and self.requeue is not None and trainer.is_global_zero:
            self.requeue()
            line += ", the job is queued again"
        raise Stopped(number, line)

    def _release(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def set_position(trainer: L.Trainer, position: Mapping[str, Any]) -> None:
    """Set a fresh trainer's counters to a checkpoint's position, before `fit`.

    Lightning's own loop state is not used: in a save hook it is one batch behind, and within an epoch it
    restarts on assumptions about validation that a stored position does not need.

    Args:
        trainer: has not run yet.
        position: epoch, batches done in it, optimiser steps.
    """
    fit, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    _set_counters(fit.epoch_progress, position["epoch"])
    _set_counters(epoch_loop.batch_progress, position["batches"])
    steps = epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    steps.ready = steps.completed = position["steps"]
    epoch_loop._batches_that_stepped = position["steps"]
    epoch_loop.restarting = position["batches"] > 0


def _set_counters(progress: _Progress, number: int) -> None:
    """Set all counters of a loop to a number of completed rounds."""
    for tracker in (progress.total, progress.current):
        for name in ("ready", "started", "processed", "completed"):
            setattr(tracker, name, number)
