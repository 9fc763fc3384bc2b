"""Convert a history file of an earlier format into the current one.

Usage: python -m tools.convert_history HISTORY --output history.toml
"""

import sys
from collections.abc import Sequence
from functools import partial

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings
from configs.runtime.files import place_faults, write_text
from configs.schema.values import PathText
from model.search.history import history_text, read_history

_FLAGS = (
    Flag("HISTORY", PathText(), "A history file.", required=True),
    Flag("--output", PathText(), "File to write.", required=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words(
            "tools.convert_history", "Convert a history file into the current format.", _FLAGS, words
        )
        findings = Findings()
        history = findings.attempt(partial(read_history, given.history))
        findings.lines += place_faults("--output", given.output)
        history = findings.settled(history)
        write_text(given.output, history_text(history))
        console.say(f"written: {given.output} ({len(history.reallocations)} reallocations)")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
