"""Run `main` in this process and die, or be signalled, right after a chosen optimiser step.

Usage: python -m tests.killed SIGNAL STEP -- ARGUMENTS
"""

import os
import signal
import sys
from typing import Any

from model.callbacks.checkpoints import Checkpoints


def _arm(number: int, step: int) -> None:
    original = Checkpoints.on_train_batch_end

    def after(self: Checkpoints, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == step and number != signal.SIGKILL:
            os.kill(os.getpid(), number)
        original(self, trainer, *arguments)
        if trainer.global_step == step and number == signal.SIGKILL:
            os.kill(os.getpid(), number)

    Checkpoints.on_train_batch_end = after


if __name__ == "__main__":
    _arm(getattr(signal, sys.argv[1]), int(sys.argv[2]))
    from main import main

    sys.exit(main(sys.argv[4:]))
