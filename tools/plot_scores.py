"""Plot score files as heat maps, layers by modules.

Usage: python -m tools.plot_scores SCORES [SCORES ...] [--scale log] [--output scores.png]
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings
from configs.runtime.files import picture_faults, write_bytes
from configs.schema.values import Choice, PathText
from model.figures.heat_maps import Panel, distinct_titles, heat_map
from model.search.score_file import Scores, read_scores, score_panel

_FLAGS = (
    Flag("SCORES", PathText(), "A score file.", required=True, repeats=True),
    Flag("--scale", Choice("scale", ("auto", "linear", "log")), "Scale of the colours.", default="auto"),
    Flag("--output", PathText(), "PNG to write; default: the first file's name with .png."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.plot_scores", "Plot score files as heat maps.", _FLAGS, words)
        output = given.output or Path(f"{given.scores[0].stem}.png").absolute()
        findings = Findings()
        files = [findings.attempt(partial(read_scores, path, "SCORES")) for path in given.scores]
        findings.lines += picture_faults("--output", output)
        scores = [findings.settled(one) for one in files]
        write_bytes(output, heat_map(panels(given.scores, scores), "score", given.scale))
        console.say(f"written: {output}")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def panels(paths: Sequence[Path], files: Sequence[Scores]) -> list[Panel]:
    """Return a panel per file; equal titles are made distinct by the run's or directory's name."""
    found = [score_panel(scores, path.stem) for path, scores in zip(paths, files)]
    names = distinct_titles([panel.title for panel in found], paths)
    return [replace(panel, title=name) for panel, name in zip(found, names)]


if __name__ == "__main__":
    sys.exit(main())
