"""Do something inside a Trainer in the place of training, on its devices and in all of its processes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import lightning as L

from configs.runtime.faults import Stopped
from model.training.learners.finetune import FineTuner

_STOPS = (signal.SIGTERM, signal.SIGINT)


class BeforeTraining(L.Callback):
    """Call a function when everything is in place for the first step, then end the run without one.

    Args:
        act: what is done; a signal ends it at once, since nothing of it could be saved.
    """

    def __init__(self, act: Callable[[L.Trainer, FineTuner], None]) -> None:
        self.act = act

    def on_train_start(self, trainer: L.Trainer, pl_module: FineTuner) -> None:
        """Act, and let the loop end."""
        with _ended_by_signals():
            self.act(trainer, pl_module)
        trainer.should_stop = True


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Take the signals over from Lightning, which would note them for a next batch that never comes."""
    before = {number: signal.signal(number, _end) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number, f"stopped by signal {number} in the search")
