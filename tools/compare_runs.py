"""Show the results of several runs side by side.

Usage: python -m tools.compare_runs RUN [RUN ...]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import console
from configs.faults import InputFault


def read_summary(directory: Path) -> dict[str, Any]:
    """Return a run's `summary.json`.

    Raises:
        InputFault: when the directory holds none, or it cannot be read.
    """
    path = directory / "summary.json"
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputFault(
            f"{directory}: no summary.json; the run is not finished, or this is no run"
        ) from None
    except ValueError as error:
        raise InputFault(f"{path}: not valid JSON: {error}") from None


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
    parser = argparse.ArgumentParser(prog="python -m tools.compare_runs", allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    runs = parser.parse_args(arguments).runs
    try:
        summaries = [read_summary(run) for run in runs]
    except InputFault as fault:
        for line in fault.lines:
            console.fault(line)
        return fault.exit_code
    console.table("Runs", ("", *[run.name for run in runs]), rows(summaries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
