"""Where adapters go and which of them are on, read from the files that the options name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from configs.runs.experiment import PLANS
from configs.runtime.faults import Findings, InputFault
from configs.schema.number_values import Whole
from configs.schema.options import Options
from configs.toml.reader import read_document
from model.plan.freezing_rule import Freezing
from model.plan.lora_toml import Plan, read_plan
from model.plan.shortcut_toml import read_shortcuts
from model.search.history import read_history
from model.site import SiteKey

AUTO = "auto"
"""Value of `heads` that takes the number of clusters found in the training texts."""
ROUTED = "routed"
"""Value of `combine` that weighs parts which are trained already by a router."""

_HEADS, _COMBINE = "heads", "combine"
_COUNT = Whole(1)
_REPORT = Path("search") / "clusters.toml"


@dataclass(frozen=True)
class Plans:
    """The configurations of adapters, and the switches of a search.

    Args:
        lora: the LoRA configuration, if one is given.
        shortcuts: the shortcut configuration, if one is given.
        switches: module -> whether it is on after the last reallocation of a history.
        history: the path of that history.
    """

    lora: Plan | None = None
    shortcuts: Plan | None = None
    switches: Mapping[SiteKey, bool] | None = None
    history: Path | None = None

    @property
    def freezing(self) -> Freezing | None:
        """The rule by which matrices stop training, if there is one."""
        return None if self.lora is None else self.lora.freezing

    def notes(self, action: str) -> tuple[str, ...]:
        """Return lines to show once.

        Args:
            action: that of the command line.
        """
        notes = [note for plan in (self.lora, self.shortcuts) if plan is not None for note in plan.notes]
        plan = self.lora
        if plan is not None and plan.freezing is not None and action in ("test", "imp-test"):
            notes.append(f"{plan.path}: [freezing] is not used by {action}")
        return tuple(notes)

    def faults(self, action: str, options: Options) -> list[str]:
        """Return a line for everything in the files that contradicts the action or the other options."""
        faults = self.auto_heads_faults(action) if action == "test" else []
        if not options.adapter and options.load_type != "pl":
            faults += self.routed_faults()
        return faults + self.freezing_faults(action, options.max_epochs)

    def freezing_faults(self, action: str, epochs: int) -> list[str]:
        """Return a line where freezing cannot be combined with the action or the length of the run.

        Args:
            action: that of the command line.
            epochs: of the run.
        """
        plan = self.lora
        if plan is None or plan.freezing is None or action not in ("train", "train-dyrealloc"):
            return []
        where = f"{plan.path}: [freezing]"
        if action == "train-dyrealloc":
            reason = "a module that is off has no gradients to compute scores from"
            return [f"{where}: cannot be used with {action}: {reason}; use train, or remove the table"]
        try:
            plan.freezing.check(epochs)
        except ValueError as refusal:
            return [f"{where}: {refusal}"]
        return []

    @property
    def has_auto_heads(self) -> bool:
        """Whether a number of heads is to be found from the training texts."""
        return self.lora is not None and self.lora.matching(_HEADS, AUTO) != []

    def with_heads(self, count: int) -> "Plans":
        """Return the plans with this number in place of every `heads = "auto"`."""
        return self if self.lora is None else replace(self, lora=self.lora.replacing(_HEADS, AUTO, count))

    def auto_heads_faults(self, reader: str) -> list[str]:
        """Return a line for each table with `heads = "auto"`.

        Args:
            reader: the action or tool that needs the number and reads no training texts.
        """
        plan = self.lora
        if plan is None:
            return []
        return [
            f'{plan.path}: [{name}] heads: "{AUTO}" needs the training texts, which {reader} does not read;'
            " write the number"
            for name in plan.matching(_HEADS, AUTO)
        ]

    def routed_faults(self) -> list[str]:
        """Return a line for each table that needs trained parts, for a run to which no adapter is given."""
        plan = self.lora
        if plan is None:
            return []
        return [
            f'{plan.path}: [{name}] {_COMBINE}: "{ROUTED}" needs parts that are trained already; give their'
            " adapter with --adapter"
            for name in plan.matching(_COMBINE, ROUTED)
            if plan.tables.get(name, plan.default).rank
        ]

    def check_history(self, modules: Collection[SiteKey]) -> None:
        """Refuse a history of reallocations that names modules without an adapter.

        Raises:
            InputFault: naming the file and the first such module.
        """
        unknown = sorted(set(self.switches or ()) - set(modules))
        if unknown:
            raise InputFault(f"{self.history}: {unknown[0]} is no module of the configurations given")


def read_plans(options: Options, findings: Findings) -> Plans:
    """Read `--lora-config`, `--shortcut-config` and the last decision of `--realloc-hist-path`."""
    lora = shortcuts = switches = None
    if options.lora_config is not None:
        lora = findings.attempt(partial(read_lora, options.lora_config))
    if options.shortcut_config is not None:
        shortcuts = findings.attempt(partial(read_shortcuts, options.shortcut_config))
    if options.realloc_hist_path is not None:
        switches = findings.attempt(partial(_last_decision, options.realloc_hist_path))
    return Plans(lora, shortcuts, switches, options.realloc_hist_path)


def read_lora(path: Path) -> Plan:
    """Read a LoRA TOML; in the copy of a run `heads = "auto"` means the number that the run found.

    Raises:
        InputFault: a line for each fault.
    """
    plan, report = read_plan(path), path.parent / _REPORT
    if path.name != PLANS["lora_config"] or not plan.matching(_HEADS, AUTO) or not report.is_file():
        return plan
    try:
        count = _COUNT.take(read_document(report, "--lora-config").table.get("chosen"))
    except ValueError as refusal:
        raise InputFault(f"{report}: chosen: {refusal}") from None
    return plan.replacing(_HEADS, AUTO, count)


def _last_decision(path: Path) -> dict[SiteKey, bool]:
    last = read_history(path, "--realloc-hist-path").reallocations[-1]
    return {key: key in last.on for key in last.scores}
