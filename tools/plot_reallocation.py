"""Plot dynamic searches: how often each module was enabled, and the share of LoRA modules over time.

Usage: python -m tools.plot_reallocation FILE [FILE ...] [--output frequency.png]
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings
from configs.runtime.files import picture_faults, write_bytes
from configs.schema.values import PathText
from model.figures.charts import share_lines
from model.figures.heat_maps import distinct_titles, heat_map
from model.search.history import Frequency, History, frequency_panel, read_either
from model.site import is_shortcut

_FLAGS = (
    Flag("FILE", PathText(), "A history or a frequency file.", required=True, repeats=True),
    Flag("--output", PathText(), "PNG of the heat map; default: frequency.png."),
    Flag(
        "--trend-output",
        PathText(),
        "PNG of the share of LoRA modules; default: lora_share.png next to --output.",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words(
            "tools.plot_reallocation", "Plot the decisions of dynamic searches.", _FLAGS, words
        )
        found, output, trend = checked(given)
        names = distinct_titles([path.stem for path in given.file], given.file)
        panels = [frequency_panel(counted, name) for name, (counted, _) in zip(names, found)]
        totals = {counted.total for counted, _ in found}
        write_bytes(
            output,
            heat_map(panels, "reallocations on", limits=panels[0].limits if len(totals) == 1 else None),
        )
        console.say(f"written: {output}")
        histories = {name: history for name, (_, history) in zip(names, found) if history.reallocations}
        if histories:
            shares = {name: lora_shares(held) for name, held in histories.items()}
            write_bytes(trend, share_lines(shares, [lora_fraction(held) for held in histories.values()]))
            console.say(f"written: {trend}")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[list[tuple[Frequency, History]], Path, Path]:
    """Return the contents of the files and the paths of the pictures.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    found = [findings.attempt(partial(read_either, path)) for path in given.file]
    output = given.output or Path("frequency.png").absolute()
    trend = given.trend_output or output.with_name("lora_share.png")
    has_trend = any(one is not None and one[1].reallocations for one in found)
    if given.trend_output and not has_trend and not findings.lines:
        findings.lines.append("--trend-output: frequency files contain no trend; give a history file")
    findings.lines += picture_faults("--output", output)
    findings.lines += picture_faults("--trend-output", trend) if has_trend else []
    return [findings.settled(one) for one in found], output, trend


def lora_shares(history: History) -> list[float | None]:
    """Return the share of LoRA among the modules that are on, at each reallocation."""
    return [one.lora_share for one in history.reallocations]


def lora_fraction(history: History) -> float:
    """Return the share of LoRA modules among all candidates, which a random choice has on average."""
    keys = [key for one in history.reallocations for key in one.scores]
    return sum(not is_shortcut(key) for key in keys) / max(1, len(keys))


if __name__ == "__main__":
    sys.exit(main())
