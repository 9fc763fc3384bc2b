"""Run `main` and die, or be signalled, at a chosen point of the run.

In a process of its own: python -m tests.killed POINT STEP RANK SIGNAL ARGUMENTS..., one rank alone is hit.
"raise" in place of a signal raises an error.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import main as program
from model import finishing
from model.callbacks.checkpoints import Checkpoints
from model.callbacks.reallocation import Reallocations
from model.callbacks.record import MetricsRecord
from model.learners.finetune import FineTuner

POINTS: dict[str, tuple[Any, str]] = {
    "decision": (Reallocations, "_decide"),
    "recorded": (MetricsRecord, "on_train_batch_end"),
    "step": (Checkpoints, "on_train_batch_end"),
    "validation": (FineTuner, "on_validation_epoch_start"),
    "best": (Checkpoints, "on_validation_end"),
    "epoch": (Checkpoints, "on_train_epoch_end"),
    "export": (finishing, "_export"),
    "report": (finishing, "write_report"),
}
"""Word -> what was just called when the signal comes; SIGTERM comes just before it."""


def arm(point: str, step: int, name: str) -> None:
    """Let the signal come at the point, in the given optimiser step where the point is within training."""
    owner, function = POINTS[point]
    original: Callable = getattr(owner, function)

    def armed(*arguments: Any) -> Any:
        trainer = arguments[0].trainer if isinstance(arguments[0], FineTuner) else arguments[1]
        is_due = getattr(trainer, "global_step", step) == step
        if is_due and name == "raise":
            raise RuntimeError("an invented fault")
        if is_due and name != "SIGKILL":
            os.kill(os.getpid(), getattr(signal, name))
        result = original(*arguments)
        if is_due and name == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, function, armed)


def child(point: str | None, step: int, name: str, words: Sequence[str], log: Path) -> None:
    """Be a process of `tests.runs.fork`: print into a file, run, exit with the program's code."""
    with log.open("wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    if point is not None:
        arm(point, step, name)
    sys.exit(program.main(list(words)))


if __name__ == "__main__":
    place, at, rank, kind = sys.argv[1:5]
    if os.environ.get("LOCAL_RANK", "0") == rank:
        arm(place, int(at), kind)
    sys.exit(program.main(sys.argv[5:]))
