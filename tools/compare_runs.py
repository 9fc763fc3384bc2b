"""Compare the results of several runs, with mean and deviation over runs that differ only in the seed.

Usage: python -m tools.compare_runs RUN [RUN ...] [--json]
"""

import json
import sys
from collections.abc import Sequence

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runs.comparison import read_results, report, show
from configs.runtime import console
from configs.schema.values import PathText, Switch

_FLAGS = (
    Flag("RUN", PathText(), "Directory of a finished run.", required=True, repeats=True),
    Flag("--json", Switch(), "Print JSON instead of a table.", default=False),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        flags = read_words("tools.compare_runs", "Compare the results of several runs.", _FLAGS, words)
        results = read_results(flags.run)
        if flags.json:
            console.say(json.dumps(report(results), indent=2, allow_nan=False))
        else:
            show(results)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
