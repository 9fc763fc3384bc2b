"""The contract of an action: what `python -m main ACTION` does with a job."""

from collections.abc import Callable
from dataclasses import dataclass

from model.run.job import Job


def _accept(job: Job) -> None:
    """Refuse nothing."""


@dataclass(frozen=True)
class Action:
    """What a file in `model/run/actions/` exports as `ACTION`.

    Args:
        run: job -> exit code.
        check: refuses, with an InputFault, a job that cannot be done, before anything is written.
    """

    run: Callable[[Job], int]
    check: Callable[[Job], None] = _accept
