"""Count the parameters of a model with adapters from its configuration, without loading weights.

Usage: python -m tools.count_params --model FAMILY_lora --load DIR_WITH_CONFIG --lora-config FILE [--json]
With shortcuts: --model FAMILY_lora_ags and --shortcut-config FILE as well.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.schema.model_name import ModelName, model_name
from configs.schema.number_values import Whole
from configs.schema.values import Choice, PathText, Switch, Word
from model.assembly.placement import Plans, read_lora
from model.exchange.adapter_directory import TASKS
from model.network.family import Family
from model.network.source_files import saved_network
from model.plan.lora_toml import Plan
from model.plan.shortcut_toml import read_shortcuts

GROUPS = ("base", "adapters", "router_or_gates", "head", "other", "trainable", "total")
SHARES = ("share_of_base", "share_of_total")
_FLAGS = (
    Flag(
        "--model", Word(), "FAMILY_lora, or FAMILY_lora_ags with shortcuts; e.g. llama_lora.", required=True
    ),
    Flag("--load", Word(), "Directory with the model's config.json.", required=True),
    Flag("--task", Choice("task", TASKS), "Task, which decides the head.", default="classification"),
    Flag("--lora-config", PathText(), "The LoRA TOML.", required=True),
    Flag("--shortcut-config", PathText(), "The shortcut TOML; required with FAMILY_lora_ags."),
    Flag("--num-labels", Whole(1, 1_000_000), "Number of outputs of a classification head.", default=2),
    Flag("--json", Switch(), "Print JSON instead of a table.", default=False),
)


@dataclass(frozen=True)
class Planned:
    """A network and its adapters, as configurations.

    Args:
        directory: with the network's config.json.
        family: the network's.
        plan: the adapter of each site.
        shortcuts: the shortcuts, if there are any.
    """

    directory: Path
    family: Family
    plan: Plan
    shortcuts: Plan | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        given = read_words("tools.count_params", "Count parameters from a configuration.", _FLAGS, words)
        planned = checked(given)
        from model.assembly.parameter_counts import planned_counts

        purpose = objective(given.task, given.num_labels)
        counts = planned_counts(
            planned.directory, planned.family, purpose, given.num_labels, planned.plan, planned.shortcuts
        )
        if given.json:
            console.say(json.dumps(record(counts), indent=2, allow_nan=False))
        else:
            console.table(f"{given.model} on {given.load}", ("parameters", "count"), rows(counts))
            if counts.is_untied:
                console.say("note: config.json of the base ties two embeddings that differ; both are counted")
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> Planned:
    """Read the inputs without importing a heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    located = findings.attempt(lambda: _located(given))
    plan = findings.attempt(lambda: read_lora(Path(given.lora_config)))
    findings.lines += Plans(plan).auto_heads_faults("this tool")
    shortcuts = None
    if given.shortcut_config is not None:
        shortcuts = findings.attempt(lambda: read_shortcuts(Path(given.shortcut_config)))
    directory, family = findings.settled(located)
    if objective(given.task, given.num_labels) not in family.heads:
        raise InputFault(f"--task: a {family.name} network has no head for '{given.task}'")
    return Planned(directory, family, findings.settled(plan), shortcuts)


def objective(task: str, outputs: int) -> str:
    """Return the objective; one output is regression."""
    if task in ("causal_language_modeling", "summarization"):
        return "language_modeling"
    return "regression" if outputs == 1 else "classification"


def record(counts: Any) -> dict[str, int | float]:
    """Return the counts under the keys that other programs read."""
    more = () if counts.freezable is None else ("trainable_at_the_end",)
    return {name: getattr(counts, name) for name in (*GROUPS, *SHARES, *more)}


def rows(counts: Any) -> list[tuple[str, str]]:
    """Return the table: counts, shares in percent, and how many modules are enabled."""
    table = [(name.replace("_", " "), f"{getattr(counts, name):,}") for name in GROUPS]
    table += [(f"{name.replace('_', ' ')}, %", f"{getattr(counts, name):.4f}") for name in SHARES]
    if counts.router_or_gates:
        table.append(("share of base without router or gates, %", f"{counts.share_without_mixing:.4f}"))
    if counts.freezable is not None:
        table.append(("trainable at the end", f"{counts.trainable_at_the_end:,}"))
    on = f"{counts.sites_on} of {counts.sites}"
    return [*table, ("modules on", on), ("parameters of modules on", f"{counts.active:,}")]


def _located(given: SimpleNamespace) -> tuple[Path, Family]:
    name: ModelName = model_name(given.model, "--model")
    if name.method == "full":
        raise InputFault(f"--model: must be FAMILY_lora or FAMILY_lora_ags, got '{given.model}'")
    if name.method == "lora_ags" and given.shortcut_config is None:
        raise InputFault(f"--shortcut-config: required with '{given.model}'")
    if name.method == "lora" and given.shortcut_config is not None:
        word = given.model
        raise InputFault(f"--shortcut-config: '{word}' has no shortcuts; did you mean --model {word}_ags?")
    directory, family = saved_network(given.load, "--load")
    if name.family not in (None, family.name):
        raise InputFault(f"--model: expects a {name.family} network, but '{given.load}' is of {family.name}")
    return directory, family


if __name__ == "__main__":
    sys.exit(main())
