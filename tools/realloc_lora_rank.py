"""Write a LoRA TOML that enables the most important modules of a score file.

Usage: python -m tools.realloc_lora_rank SCORES [--percentile 0.25] [--rank 8] [--output FILE]
"""

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import place_faults, write_text
from configs.runtime.seeds import draws
from configs.schema.number_values import Real, Whole
from configs.schema.values import Choice, PathText, Switch, Word
from model.network.family import Family
from model.network.source_files import saved_network
from model.plan.adapter_config import AdapterConfig
from model.plan.shortcut_toml import SHORTCUT_FORM
from model.plan.toml_writer import plan_text
from model.search.allocation import allocate, select_within_budget, ties_at_cutoff
from model.search.rank_distribution import distribute_ranks
from model.search.score_file import Scores, read_scores
from model.site import SiteKey, is_shortcut

_MODES = ("off", "combined", "separated")
_FLAGS = (
    Flag("SCORES", PathText(), "A score file.", required=True),
    Flag("--percentile", Real(0, 1, low_open=True), "Share of the modules to enable.", default=0.25),
    Flag("--budget-params", Whole(1), "Parameter budget, instead of --percentile."),
    Flag("--rank", Whole(1), "Rank of an enabled module.", default=8),
    Flag("--alpha", Real(0, low_open=True), "Alpha at that rank.", default=16.0),
    Flag("--seed", Whole(0, 2**32 - 1), "Seed that breaks ties.", default=0),
    Flag("--spread", Switch(), "Distribute the total rank in proportion to the scores.", default=False),
    Flag("--max-rank", Whole(1), "Largest rank with --spread; default: 4 x --rank."),
    Flag(
        "--ags-mode", Choice("mode", _MODES), "How shortcuts compete with LoRA modules.", default="separated"
    ),
    Flag("--load", Word(), "Directory with the model's config.json, for score files without widths."),
    Flag("--output", PathText(), "LoRA TOML to write; default: named after data set and method."),
    Flag(
        "--shortcut-output",
        PathText(),
        "Shortcut TOML to write; default: the LoRA TOML's name with -shortcuts.",
    ),
)


@dataclass(frozen=True)
class Choosing:
    """The enabled modules and their ranks.

    Args:
        ranked: module -> score, for all candidates.
        ranks: enabled module -> its rank.
        costs: module -> parameters per rank, or None when the widths are not known.
    """

    ranked: Mapping[SiteKey, float]
    ranks: Mapping[SiteKey, int]
    costs: Mapping[SiteKey, int] | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose modules, write the TOMLs, print a table, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        purpose = "Write a LoRA TOML from a score file."
        given = read_words("tools.realloc_lora_rank", purpose, _FLAGS, words)
        scores, network = checked(given)
        if network is not None:
            from model.assembly.parameter_counts import planned_widths

            directory, family = network
            scores = Scores(scores.values, scores.metadata, planned_widths(directory, family))
        chosen = choose(scores, given)
        lora, shortcuts = places(scores, given)
        files = contents(chosen, given, lora, shortcuts)
        for path, text in files.items():
            write_text(path, text)
        show(chosen, given, tuple(files))
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> tuple[Scores, tuple[Path, Family] | None]:
    """Read the inputs without importing a heavy library.

    Returns:
        The scores, and the directory and family of the network that gives their widths, if one is named.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    if {"--percentile", "--budget-params"} <= given.given:
        findings.lines.append("--budget-params: cannot be combined with --percentile")
    if given.max_rank is not None and not given.spread:
        findings.lines.append("--max-rank: only with --spread")
    for flag, path in (("--output", given.output), ("--shortcut-output", given.shortcut_output)):
        findings.lines += place_faults(flag, path) if path else []
    scores = findings.attempt(partial(read_scores, given.scores, "SCORES"))
    network = findings.attempt(partial(saved_network, given.load, "--load")) if given.load else None
    if scores is not None and network is None and scores.costs() is None:
        needing = [flag for flag in ("--budget-params", "--spread") if flag in given.given and not given.load]
        findings.lines += [
            f"{flag}: '{given.scores}' contains no widths; give --load DIR" for flag in needing
        ]
    return findings.settled(scores), network


def choose(scores: Scores, given: SimpleNamespace) -> Choosing:
    """Return which modules are enabled, and their ranks.

    Raises:
        InputFault: when the budget enables no LoRA module, or needs widths that are not known.
    """
    ranked = {
        key: one for key, one in scores.values.items() if given.ags_mode != "off" or not is_shortcut(key)
    }
    lots = draws(given.seed, "ties")
    if given.budget_params is None:
        where = "--percentile"
        kept = [
            key for key, on in allocate(ranked, given.percentile, given.ags_mode, lots, where).items() if on
        ]
    else:
        where = "--budget-params"
        if given.ags_mode == "separated" and any(map(is_shortcut, ranked)):
            raise InputFault(f"{where}: a single budget needs --ags-mode off or combined")
        costs = _costs(scores, where)
        sizes = {key: given.rank * costs[key] for key in ranked}
        kept = sorted(select_within_budget(ranked, sizes, given.budget_params, lots))
    if all(map(is_shortcut, kept)):
        raise InputFault(f"{where}: enables no LoRA module; a LoRA TOML needs at least one")
    ranks = dict.fromkeys(kept, given.rank)
    if given.spread:
        for group in _groups(kept, given.ags_mode):
            some = {key: ranked[key] for key in group}
            ranks |= distribute_ranks(
                some, _costs(scores, "--spread"), given.rank, given.max_rank or 4 * given.rank
            )
    return Choosing(ranked, ranks, scores.costs())


def _costs(scores: Scores, flag: str) -> Mapping[SiteKey, int]:
    costs = scores.costs()
    if costs is None:
        role = min({key.role for key in scores.values} - set(scores.widths))
        raise InputFault(f"{flag}: the network of --load has no module {role}, which the score file has")
    return costs


def places(scores: Scores, given: SimpleNamespace) -> tuple[Path, Path]:
    """Return the paths of the LoRA TOML and the shortcut TOML; by default with the first free number.

    Raises:
        InputFault: when the shortcut TOML exists already.
    """
    if given.output is not None:
        shortcuts = given.shortcut_output or _beside(given.output)
        faults = [] if given.shortcut_output else place_faults("--shortcut-output", shortcuts)
        if faults and any(map(is_shortcut, scores.values)):
            raise InputFault(*faults)
        return given.output, shortcuts
    method = str(scores.metadata.get("method", given.scores.stem))
    words = [str(scores.metadata["dataset"])] if "dataset" in scores.metadata else []
    stem = "-".join(re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in (*words, method))
    for number in count():
        path = Path(f"{stem}-version_{number}.toml").absolute()
        shortcuts = given.shortcut_output or _beside(path)
        if not any(map(os.path.lexists, {path, shortcuts} - {given.shortcut_output})):
            return path, shortcuts
    raise AssertionError("numbers do not end")


def contents(chosen: Choosing, given: SimpleNamespace, lora: Path, shortcuts: Path) -> dict[Path, str]:
    """Return the text of each file; alpha is proportional to the rank, so all modules have the same scale."""
    configs = {
        key: AdapterConfig(rank, given.alpha * rank / given.rank, 0.0, "default", disabled=False)
        for key, rank in chosen.ranks.items()
    }
    texts = {lora: plan_text({key: config for key, config in configs.items() if not is_shortcut(key)})}
    edits = {key: config for key, config in configs.items() if is_shortcut(key)}
    return texts | ({shortcuts: plan_text(edits, form=SHORTCUT_FORM)} if edits else {})


def show(chosen: Choosing, given: SimpleNamespace, files: Sequence[Path]) -> None:
    """Print enabled modules and parameters by role, ties at the cut-off, and the files."""
    roles = list(dict.fromkeys(sorted(key.role for key in chosen.ranked)))
    roles.sort(key=lambda role: SiteKey(0, role))
    rows = [_row(role, [key for key in chosen.ranked if key.role == role], chosen) for role in roles]
    console.table(
        "Enabled modules",
        ("role", "enabled", "of", "ranks", "parameters"),
        [*rows, _row("all", list(chosen.ranked), chosen)],
    )
    if given.budget_params is None:
        for group in _groups(chosen.ranked, given.ags_mode):
            tied, drawn = ties_at_cutoff({key: chosen.ranked[key] for key in group}, chosen.ranks)
            if tied:
                console.say(
                    f"ties: {tied} modules at the cut-off score, {drawn} of them drawn (seed {given.seed})"
                )
    for path in files:
        console.say(f"written: {path}")


def _row(name: str, keys: Sequence[SiteKey], chosen: Choosing) -> list[str]:
    ranks = sorted(chosen.ranks[key] for key in keys if key in chosen.ranks)
    spelled = "" if not ranks else str(ranks[0]) if ranks[0] == ranks[-1] else f"{ranks[0]} to {ranks[-1]}"
    spent = "?"
    if chosen.costs is not None:
        spent = f"{sum(chosen.costs[key] * chosen.ranks[key] for key in keys if key in chosen.ranks):,}"
    return [name, str(len(ranks)), str(len(keys)), spelled, spent]


def _groups(keys: Collection[SiteKey], mode: str) -> list[list[SiteKey]]:
    """Return groups of modules that compete with each other."""
    if mode == "combined":
        return [sorted(keys)]
    parts = [[key for key in sorted(keys) if is_shortcut(key) is one] for one in (False, True)]
    return [part for part in parts if part]


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-shortcuts.toml")


if __name__ == "__main__":
    sys.exit(main())
