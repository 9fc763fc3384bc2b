"""Run `main` and die, or be signalled, at a chosen point of the run.

In a process of its own: python -m tests.support.killed POINT STEP RANK SIGNAL ARGUMENTS..., one rank alone
is hit, or "all". In place of a signal "raise" raises an error, "differ" chooses other modules than the
search, and "digest" prints what the process holds: weights, what is on, the optimiser's state.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import main as program
from configs.runs.run_directory import HANDED_DOWN
from model.run import finish
from model.search.budget import Budget
from model.search.reallocation_callback import ReallocationCallback
from model.training.callbacks.checkpoints import Checkpoints
from model.training.callbacks.metrics_record import MetricsRecord
from model.training.learners.finetune import FineTuner
from tests.support.pictures import blank_pictures

Driver = tuple[()] | tuple[str, int, str, str]

POINTS: dict[str, tuple[Any, str]] = {
    "choice": (Budget, "choose"),
    "decision": (ReallocationCallback, "_decide"),
    "recorded": (MetricsRecord, "on_train_batch_end"),
    "step": (Checkpoints, "on_train_batch_end"),
    "validation": (FineTuner, "on_validation_epoch_start"),
    "best": (Checkpoints, "on_validation_end"),
    "epoch": (Checkpoints, "on_train_epoch_end"),
    "export": (finish, "_export"),
    "report": (finish, "write_report"),
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
        if is_due and name not in ("SIGKILL", "differ", "digest"):
            os.kill(os.getpid(), getattr(signal, name))
        result = original(*arguments)
        if is_due and name == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if is_due and name == "digest":
            _print_digest(*arguments[1:3])
        return _another(result, arguments[1]) if is_due and name == "differ" else result

    setattr(owner, function, armed)


def _another(chosen: frozenset, scores: Mapping[Any, float]) -> frozenset:
    """Return a choice of the same size with one module replaced by another."""
    return chosen - {min(chosen)} | {min(set(scores) - chosen)}


def _print_digest(trainer: Any, learner: FineTuner) -> None:
    """Print the rank and a digest of everything that training moves."""
    digest = hashlib.sha256()
    states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    for tensor in (*learner.trained().values(), *states):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    digest.update(repr([(key, one.enabled) for key, one in learner.attachments.items()]).encode())
    sys.stdout.write(f"digest {trainer.global_rank} {digest.hexdigest()}\n")
    sys.stdout.flush()


def child(point: str | None, step: int, name: str, words: Sequence[str], log: Path) -> None:
    """Be a process of `tests.support.runs.fork`: print into a file, run, exit with the program's code."""
    with log.open("wb") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    if point is not None:
        arm(point, step, name)
    with blank_pictures():
        sys.exit(program.main(list(words)))


def member(number: int, port: int, directory: Path, driver: Driver, words: Sequence[str]) -> None:
    """Be one of two processes that torchrun would start: as `child`, with its variables set.

    Args:
        number: the rank.
        port: where the processes meet.
        directory: of the run; its output is written next to it.
        driver: point, step, rank that is hit or "all", signal; empty to hit none.
        words: the command line.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_PORT")
    values = (number, number, 2, 2, 0, port)
    os.environ |= {name: str(value) for name, value in zip(names, values)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "tests", HANDED_DOWN: str(directory)}
    log = directory.with_name(f"{directory.name}-{number}.log")
    is_hit = driver and driver[2] in ("all", str(number))
    place, step, kind = (driver[0], driver[1], driver[3]) if is_hit else (None, 0, "")
    child(place, step, kind, words, log)


if __name__ == "__main__":
    place, at, rank, kind = sys.argv[1:5]
    if rank in ("all", os.environ.get("LOCAL_RANK", "0")):
        arm(place, int(at), kind)
    with blank_pictures():
        sys.exit(program.main(sys.argv[5:]))
