"""Do something inside a Trainer in the place of training, on its devices and in all of its processes."""

from collections.abc import Callable

import lightning as L

from model.learners.finetune import FineTuner


class BeforeTraining(L.Callback):
    """Call a function when everything is in place for the first step, then end the run without one.

    Args:
        act: what is done.
    """

    def __init__(self, act: Callable[[L.Trainer, FineTuner], None]) -> None:
        self.act = act

    def on_train_start(self, trainer: L.Trainer, pl_module: FineTuner) -> None:
        """Act, and let the loop end."""
        self.act(trainer, pl_module)
        trainer.should_stop = True
