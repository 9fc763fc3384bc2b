"""Everything that says where adapters sit and which of them are on, read from the files that options name."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from configs.faults import Findings, InputFault
from model.history import read_history
from model.plan import Plan, read_plan
from model.shortcut_plan import read_shortcuts
from model.site import SiteKey


@dataclass(frozen=True)
class Plans:
    """What the files say.

    Args:
        lora: the LoRA configuration, if one is given.
        shortcuts: the shortcut configuration, if one is given.
        switches: module -> whether it is on, as the last decision of a history has it.
        history: that history's path.
    """

    lora: Plan | None = None
    shortcuts: Plan | None = None
    switches: Mapping[SiteKey, bool] | None = None
    history: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to show once."""
        return tuple(note for plan in (self.lora, self.shortcuts) if plan is not None for note in plan.notes)

    def require(self, modules: Mapping[SiteKey, Any]) -> None:
        """Refuse a history about modules that there are not.

        Raises:
            InputFault: naming the file and the first such module.
        """
        odd = sorted(set(self.switches or ()) - set(modules))
        if odd:
            raise InputFault(f"{self.history}: {odd[0]} is no module of the configurations given")


def read_plans(options: Any, findings: Findings) -> Plans:
    """Read `--lora-config`, `--shortcut-config` and the last decision of `--realloc-hist-path`."""
    lora = shortcuts = switches = None
    if options.lora_config is not None:
        lora = findings.attempt(partial(read_plan, options.lora_config))
    if options.shortcut_config is not None:
        shortcuts = findings.attempt(partial(read_shortcuts, options.shortcut_config))
    if options.realloc_hist_path is not None:
        switches = findings.attempt(partial(_last_decision, options.realloc_hist_path))
    return Plans(lora, shortcuts, switches, options.realloc_hist_path)


def _last_decision(path: Path) -> dict[SiteKey, bool]:
    last = read_history(path, "--realloc-hist-path").reallocations[-1]
    return {key: key in last.on for key in last.scores}
