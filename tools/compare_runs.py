"""Show the results of several runs side by side.

Usage: python -m tools.compare_runs RUN [RUN ...]
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from configs import console
from configs.faults import Findings, InputFault
from configs.tool_flags import Flag, ended, read_words
from configs.values import PathText

_FLAGS = (Flag("RUN", PathText(), "A finished run's directory.", required=True, repeats=True),)
_PARTS = ("metrics", "trainable_parameters", "steps")


def read_summary(directory: Path) -> dict[str, Any]:
    """Return a run's `summary.json`.

    Raises:
        InputFault: when the directory holds none, or it cannot be read.
    """
    path = directory / "summary.json"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputFault(
            f"{directory}: no summary.json; the run is not finished, or this is no run"
        ) from None
    except ValueError as error:
        raise InputFault(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict) or not set(_PARTS) <= set(content):
        raise InputFault(f"{path}: is no run's summary, which has {', '.join(_PARTS)}")
    return content


def read_summaries(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the summaries of several runs.

    Raises:
        InputFault: a line for each that cannot be read.
    """
    findings = Findings()
    summaries = [findings.attempt(partial(read_summary, directory)) for directory in directories]
    findings.settle()
    return summaries


def rows(summaries: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each metric that any run has, and for trained parameters and steps."""
    names = sorted({name for summary in summaries for name in summary["metrics"]})
    table = [[name, *[_number(summary["metrics"].get(name)) for summary in summaries]] for name in names]
    table.append(["trainable parameters", *[f"{s['trainable_parameters']['total']:,}" for s in summaries]])
    table.append(["steps", *[str(summary["steps"]) for summary in summaries]])
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        runs = read_words("tools.compare_runs", "Show results of runs side by side.", _FLAGS, words).run
        summaries = read_summaries(runs)
        console.table("Runs", ("", *[run.name for run in runs]), rows(summaries))
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
