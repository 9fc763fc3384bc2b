"""The budget of a search: which modules it may switch, how many of them are on, and which.

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956), dynamic reallocation; the formulas are in
`model.search.allocation`.
Differs: a budget in parameters may replace the share of modules, since modules differ in size.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random

from model.search.allocation import Mode, allocate, ranked_groups, select_within_budget, too_small
from model.site import SiteKey, is_shortcut


def eligible(keys: Collection[SiteKey], mode: Mode) -> list[SiteKey]:
    """Return the modules that a search switches, in order; in mode `off` shortcuts stay as configured."""
    return sorted(key for key in keys if mode != "off" or not is_shortcut(key))


@dataclass(frozen=True)
class Budget:
    """How many of the eligible modules are on.

    Args:
        sizes: eligible module -> its number of parameters.
        share: share of the modules that is on, in (0, 1].
        mode: whether shortcuts have a ranking of their own.
        parameters: most parameters of all modules that are on together; None to count modules.
    """

    sizes: Mapping[SiteKey, int]
    share: float
    mode: Mode
    parameters: int | None = None

    def check(self) -> None:
        """Refuse a budget under which no module would be on.

        Raises:
            InputFault: naming the flag, and the smallest value that would.
        """
        if self.parameters is None:
            ranked_groups(list(self.sizes), self.share, self.mode)
        elif self.parameters < min(self.sizes.values(), default=0):
            raise too_small(self.parameters, self.sizes.values())

    def choose(self, scores: Mapping[SiteKey, float], draws: Random) -> frozenset[SiteKey]:
        """Return the modules that are on.

        Args:
            scores: eligible module -> score.
            draws: generator of this decision only, which breaks ties.

        Raises:
            InputFault: when no module fits into the budget of parameters.
            NonFiniteFault: when a score is NaN or infinite.
        """
        if self.parameters is not None:
            return select_within_budget(scores, self.sizes, self.parameters, draws)
        decided = allocate(scores, self.share, self.mode, draws)
        return frozenset(key for key, is_on in decided.items() if is_on)

    def description(self) -> str:
        """Return the budget in words: modules on in each ranking, and the active parameters."""
        if self.parameters is not None:
            return f"at most {self.parameters:,} parameters in {len(self.sizes)} modules"
        rankings = ranked_groups(list(self.sizes), self.share, self.mode)
        parts = [f"{budget} of {len(group)} {_name(group)}" for group, budget in rankings]
        ranked = [(sorted(self.sizes[key] for key in group), budget) for group, budget in rankings]
        least = sum(sum(sizes[:budget]) for sizes, budget in ranked)
        most = sum(sum(sizes[len(sizes) - budget :]) for sizes, budget in ranked)
        active = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        return f"{', '.join(parts)}, {active} parameters active"


def _name(group: Collection[SiteKey]) -> str:
    shortcuts = sum(map(is_shortcut, group))
    if not shortcuts:
        return "LoRA modules"
    return "shortcuts" if shortcuts == len(group) else "LoRA modules and shortcuts"
