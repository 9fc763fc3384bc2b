"""Recompute from a history how often each module was enabled.

Usage: python -m tools.recompute_frequency HISTORY [--output frequency.toml | --check frequency.toml]
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import place_faults, write_text
from configs.schema.values import PathText
from model.search.history import Frequency, frequency, frequency_text, read_frequency, read_history

_MOST_SHOWN = 10
_FLAGS = (
    Flag("HISTORY", PathText(), "A history file.", required=True),
    Flag("--output", PathText(), "Frequency file to write; default: frequency.toml next to HISTORY."),
    Flag("--check", PathText(), "Only compare with this frequency file."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Recompute, then write or compare, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words(
            "tools.recompute_frequency", "Recompute the frequencies of a history.", _FLAGS, words
        )
        output = given.output or given.history.with_name("frequency.toml")
        findings = Findings()
        if given.check and given.output:
            findings.lines.append("--output: cannot be combined with --check, which writes nothing")
        if not given.check:
            findings.lines += place_faults("--output", output)
        history = findings.attempt(partial(read_history, given.history))
        other = findings.attempt(partial(read_frequency, given.check, "--check")) if given.check else None
        counted = frequency(findings.settled(history))
        if other is None:
            write_text(output, frequency_text(counted))
            console.say(f"written: {output} ({counted.total} reallocations, {len(counted.counts)} modules)")
        else:
            compare(counted, other, given.check)
            console.say(f"equal: {counted.total} reallocations, {len(counted.counts)} modules")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def compare(counted: Frequency, other: Frequency, path: Path) -> None:
    """Compare a frequency file with the counts of the history.

    Raises:
        InputFault: a line for each of the first ten differences.
    """
    faults = []
    if other.total != counted.total:
        faults.append(f"total_reallocation_number: is {other.total}, the history has {counted.total}")
    for key in sorted({*counted.counts, *other.counts}):
        mine, theirs = counted.counts.get(key), other.counts.get(key)
        if mine != theirs:
            faults.append(f"{key}: is {_shown(theirs)}, the history gives {_shown(mine)}")
    if faults:
        raise InputFault(*(f"{path}: {fault}" for fault in faults[:_MOST_SHOWN]))


def _shown(count: int | None) -> str:
    return "missing" if count is None else str(count)


if __name__ == "__main__":
    sys.exit(main())
