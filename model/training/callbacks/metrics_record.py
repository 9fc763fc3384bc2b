"""Keep `metrics.csv`: the loss of every optimiser step and the result of every evaluation."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from configs.runtime.faults import InputFault, NonFiniteFault
from configs.runtime.files import write_text
from model.training.learners.finetune import fine_tuner

HEADER = "step,epoch,name,value\n"


class MetricsRecord(L.Callback):
    """Write one row per optimiser step and per evaluation, in full precision.

    Losses stay on their device until a flush, so that a step never waits for them. The checkpoint holds the
    file's length in bytes; a resumed run truncates the file to it.

    Args:
        path: `metrics.csv`.
        flush_every: optimiser steps between flushes.
    """

    def __init__(self, path: Path, flush_every: int) -> None:
        self.path = path
        self.flush_every = flush_every
        self.offset: int | None = None
        self.losses: dict[int, float] = {}
        self._window: list[Tensor] = []
        self._pending: list[tuple[int, int, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the file's length in bytes at this point."""
        return {"offset": self.offset}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the length of a checkpoint."""
        self.offset = state_dict["offset"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create the file, or truncate it to the checkpoint's length.

        Raises:
            InputFault: when the file lacks rows that the checkpoint counts.
        """
        if self.offset is None:
            self.offset = len(HEADER)
            if trainer.is_global_zero:
                write_text(self.path, HEADER)
        elif trainer.is_global_zero:
            check_length(self.path, self.offset)
            os.truncate(self.path, self.offset)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch's loss; at the end of its accumulation window keep their mean, the step's loss."""
        learner = fine_tuner(pl_module)
        if learner.last_loss is not None:
            self._window.append(learner.last_loss)
        if len(self._window) < learner.window(batch_idx):
            return
        self._pending.append((trainer.global_step, trainer.current_epoch, torch.stack(self._window).mean()))
        self._window = []
        if len(self._pending) >= self.flush_every:
            self.flush(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the evaluation's rows after those of its steps.

        Raises:
            NonFiniteFault: naming the step, when the loss of training or of the evaluation is not finite.
        """
        self.flush(trainer)
        results = fine_tuner(pl_module).results
        values = {name: value for name, value in results.items() if name.startswith("val/")}
        for name, value in values.items():
            if name.startswith("val/loss") and not math.isfinite(value):
                raise NonFiniteFault(f"step {trainer.global_step}: {name} is {value}")
        self.write(trainer, trainer.global_step, trainer.current_epoch, values)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the pending losses."""
        self.flush(trainer)

    def flush(self, trainer: L.Trainer) -> None:
        """Move the pending losses to the host, average them over processes and write them.

        Raises:
            NonFiniteFault: naming the first step whose loss is not finite.
        """
        if not self._pending:
            return
        losses = torch.stack([loss for _, _, loss in self._pending]).double()
        if trainer.world_size > 1:
            torch.distributed.all_reduce(losses)
            losses /= trainer.world_size
        rows, self._pending = self._pending, []
        for (step, epoch, _), loss in zip(rows, losses.tolist()):
            if not math.isfinite(loss):
                raise NonFiniteFault(f"step {step}: the training loss is {loss}")
            self.losses[step] = loss
            self.write(trainer, step, epoch, {"train/loss": loss})

    def write(self, trainer: L.Trainer, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Append a row for each value; every process counts the bytes, only the first one writes them."""
        text = "".join(f"{step},{epoch},{name},{value!r}\n" for name, value in values.items())
        self.offset = (self.offset or 0) + len(text.encode())
        if trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())


def check_length(path: Path, length: int) -> None:
    """Refuse a `metrics.csv` shorter than a checkpoint knows it, which `os.truncate` would fill with NULs.

    Args:
        path: the file.
        length: its bytes when the checkpoint was written.

    Raises:
        InputFault: naming the file.
    """
    size = path.stat().st_size if path.is_file() else None
    if size is None or size < length:
        found = "is missing" if size is None else f"has {size} bytes"
        raise InputFault(
            f"{path}: {found}, but the checkpoint was written after {length};"
            " restore the file to resume the run"
        )


def close_metrics(path: Path, step: int, epoch: int, values: Mapping[str, float]) -> None:
    """Append the final test's rows to those of training; rows of an interrupted attempt are replaced."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEADER
    kept = [line for line in text.splitlines(keepends=True) if ",test/" not in line]
    closing = [f"{step},{epoch},{name},{value!r}\n" for name, value in values.items()]
    write_text(path, "".join(kept + closing))


def read_metrics(path: Path) -> list[tuple[int, int, str, float]]:
    """Return the rows of a `metrics.csv`: step, epoch, name, value."""
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n")[1:]:
        if line:
            step, epoch, name, value = line.split(",")
            rows.append((int(step), int(epoch), name, float(value)))
    return rows
