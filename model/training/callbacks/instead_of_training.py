"""Run a function inside a Trainer instead of training, on its devices and in all of its processes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import lightning as L

from configs.runtime.faults import Stopped
from model.training.learners.finetune import FineTuner, fine_tuner

_STOPS = (signal.SIGTERM, signal.SIGINT)


class InsteadOfTraining(L.Callback):
    """Call a function when everything is ready for the first step, then end without taking one.

    Args:
        act: (trainer, learner) -> None; a signal ends it at once, since it has no checkpoint.
    """

    def __init__(self, act: Callable[[L.Trainer, FineTuner], None]) -> None:
        self.act = act

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Call the function, then let the training loop end.

        Raises:
            Stopped: on SIGTERM or SIGINT.
        """
        with _ended_by_signals():
            self.act(trainer, fine_tuner(pl_module))
        trainer.should_stop = True


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Handle the signals here; Lightning would wait with them for a next batch that never comes."""
    before = {number: signal.signal(number, _end) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number, f"stopped by signal {number} in the search")
