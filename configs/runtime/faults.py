"""What can go wrong and the exit code it ends with."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

Found = TypeVar("Found")


class Fault(Exception):
    """A failure the program expects and reports in plain lines, without a traceback."""

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class InputFault(Fault):
    """Bad input, refused before anything was written. Each line reads `WHERE: WHAT`."""

    exit_code = 2


class NonFiniteFault(Fault):
    """A loss, gradient, score or parameter became NaN or infinite."""

    exit_code = 3


class SystemFault(Fault):
    """The surroundings failed: disk, memory, a lost process."""

    exit_code = 4


class Stopped(Fault):
    """The run ends on a signal after it wrote its checkpoint."""

    def __init__(self, signal_number: int, line: str) -> None:
        super().__init__(line)
        self.exit_code = 128 + signal_number


class EndedEarlier(Fault):
    """A process that does a part of the work ended with an exit code of its own."""

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
    """Return `; did you mean 'X'?` for the nearest allowed word, or an empty string."""
    near = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def unknown(what: str, word: str, allowed: Iterable[str]) -> str:
    """Word the refusal of a name: `no WHAT 'WORD', one of A, B; did you mean 'A'?`."""
    names = sorted(allowed)
    return f"no {what} '{word}', one of {', '.join(names)}{suggestion(word, names)}"


def is_lost_process(error: BaseException) -> bool:
    """Tell whether an exchange between processes failed because another one of the run is gone."""
    words = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
