"""Compare how two score files rank the modules they share.

Usage: python -m tools.rank_correlation A B [--share 0.25] [--json]
"""

import json
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.schema.number_values import Real
from configs.schema.values import PathText, Switch
from model.search.allocation import lora_budget, rounded
from model.search.score_file import Scores, read_scores
from model.site import SiteKey

_LEAST = 3
_FLAGS = (
    Flag("A", PathText(), "A score file.", required=True),
    Flag("B", PathText(), "Another score file.", required=True),
    Flag("--share", Real(0, 1, low_open=True), "Share of the modules that counts as the top.", default=0.25),
    Flag("--json", Switch(), "Print JSON instead of a table.", default=False),
)


@dataclass(frozen=True)
class Comparison:
    """How two rankings agree.

    Args:
        modules: number of modules that both files score.
        only_a: number of modules that only the first file scores.
        only_b: number of modules that only the second file scores.
        spearman: rank correlation with mean ranks for ties; None where all scores of a file are equal.
        p_value: two-sided p-value; None without correlation.
        top: number of modules in the top of each.
        overlap: share of the top that both files have in common.
    """

    modules: int
    only_a: int
    only_b: int
    spearman: float | None
    p_value: float | None
    top: int
    overlap: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.rank_correlation", "Compare two rankings of modules.", _FLAGS, words)
        a, b = checked(given)
        from scipy.stats import spearmanr

        found = compare(a.values, b.values, given.share, spearmanr)
        if given.json:
            content = {name: getattr(found, name) for name in found.__dataclass_fields__}
            console.say(json.dumps(content, indent=2, allow_nan=False))
        else:
            console.table(f"{given.a.name} and {given.b.name}", ("rankings", ""), rows(found))
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[Scores, Scores]:
    """Read both files.

    Raises:
        InputFault: one line for each fault, or when the files share too few modules.
    """
    findings = Findings()
    first = findings.attempt(partial(read_scores, given.a, "A"))
    second = findings.attempt(partial(read_scores, given.b, "B"))
    a, b = findings.settled(first), findings.settled(second)
    shared = len(set(a.values) & set(b.values))
    if shared < _LEAST:
        raise InputFault(f"B: shares {shared} modules with A; a correlation needs at least {_LEAST}")
    if not lora_budget(given.share, shared):
        raise InputFault(f"--share: {given.share:g} of {shared} modules is less than one module")
    return a, b


def compare(
    a: Mapping[SiteKey, float], b: Mapping[SiteKey, float], share: float, spearmanr: Any
) -> Comparison:
    """Return how two rankings agree on the modules they share; scores are rounded to 9 digits.

    Args:
        a: module -> score.
        b: module -> score.
        share: share of the modules that counts as the top.
        spearmanr: `scipy.stats.spearmanr`.
    """
    shared = sorted(set(a) & set(b))
    columns = [[rounded(scores[key]) for key in shared] for scores in (a, b)]
    is_flat = any(len(set(column)) == 1 for column in columns)
    statistic, p_value = (None, None) if is_flat else map(float, spearmanr(*columns))
    p_value = None if p_value is None or math.isnan(p_value) else p_value  # two modules have none
    count = lora_budget(share, len(shared))
    common = top(a, shared, count) & top(b, shared, count)
    return Comparison(
        modules=len(shared),
        only_a=len(a) - len(shared),
        only_b=len(b) - len(shared),
        spearman=statistic,
        p_value=p_value,
        top=count,
        overlap=len(common) / count,
    )


def top(scores: Mapping[SiteKey, float], keys: Collection[SiteKey], count: int) -> set[SiteKey]:
    """Return the `count` modules of highest score; ties by layer and role."""
    return set(sorted(sorted(keys), key=lambda key: -rounded(scores[key]))[:count])


def rows(found: Comparison) -> list[tuple[str, str]]:
    """Return the table's lines."""
    is_flat = found.spearman is None
    table = [("modules in both", str(found.modules))]
    table += (
        [("only in A, only in B", f"{found.only_a}, {found.only_b}")] if found.only_a + found.only_b else []
    )
    table += [
        ("Spearman", "none: all scores of one file are equal" if is_flat else f"{found.spearman:.6f}"),
        ("p-value", "" if found.p_value is None else f"{found.p_value:.3g}"),
        (f"top {found.top} in common", f"{found.overlap:.4f}"),
        ("expected by chance", f"{found.top / found.modules:.4f}"),
    ]
    return table


if __name__ == "__main__":
    sys.exit(main())
