"""The kinds of failure, and the exit code of each."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

Found = TypeVar("Found")


class Fault(Exception):
    """A failure that the program expects and reports in plain lines, without a traceback."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class InputFault(Fault):
    """Bad input, found before anything was written. Each line has the form `WHERE: WHAT`."""

    exit_code = 2


class NonFiniteFault(Fault):
    """A loss, gradient, score or parameter became NaN or infinite."""

    exit_code = 3


class SystemFault(Fault):
    """The environment failed: disk, memory, network, or another process."""

    exit_code = 4


class Stopped(Fault):
    """The run ended on a signal, after writing its checkpoint."""

    def __init__(self, signal_number: int, line: str) -> None:
        super().__init__(line)
        self.exit_code = 128 + signal_number


class EndedEarlier(Fault):
    """A child process ended with an exit code other than 0."""

    def __init__(self, exit_code: int, line: str) -> None:
        super().__init__(line)
        self.exit_code = exit_code


class Findings:
    """Faults of independent steps, reported together: one bad file does not hide the next."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def attempt(self, step: Callable[[], Found]) -> Found | None:
        """Return the step's result, or None when it raised an InputFault; its lines are kept for `settle`."""
        try:
            return step()
        except InputFault as fault:
            self.lines += fault.lines
            return None

    def settle(self) -> None:
        """End the collection.

        Raises:
            InputFault: with every line, when there is one.
        """
        if self.lines:
            raise InputFault(*self.lines)

    def settled(self, found: Found | None) -> Found:
        """End the collection and return the result of one of its attempts, which is then known to exist.

        Raises:
            InputFault: with every line, when there is one.
        """
        self.settle()
        assert found is not None  # an attempt without result left its lines
        return found


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'X'?` for the closest allowed word, or an empty string."""
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def unknown(what: str, word: str, allowed: Iterable[str]) -> str:
    """Return the message for an unknown name: `no WHAT 'WORD', one of A, B; did you mean 'A'?`."""
    names = sorted(allowed)
    return f"no {what} '{word}', one of {', '.join(names)}{suggestion(word, names)}"


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error of communication means that another process of the run has ended."""
    words = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
