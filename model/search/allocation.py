"""Which modules are on: budgets, rankings, ties; numbers in, decisions out.

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956), section 3.
Differs: a share of a number of modules is taken as it is written in decimals (0.29 of 100 modules is 29), not
as the product of binary numbers happens to fall; scores are rounded to 9 significant digits first, so that
processes which add gradients in another order agree; a budget of 0 is refused.

Nothing here depends on the order in which modules come: they are sorted before anything is drawn.
"""

import math
from collections.abc import Collection, Mapping
from random import Random
from typing import Literal

from configs.runtime.faults import InputFault, NonFiniteFault
from model.site import SiteKey, is_shortcut

Mode = Literal["off", "combined", "separated"]

_DIGITS = 9


def rounded(score: float) -> float:
    """Return a score with the 9 significant digits that count; zero comes out without a sign."""
    return float(f"{score:.{_DIGITS - 1}e}") + 0.0


def lora_budget(share: float, count: int) -> int:
    """Return how many of `count` LoRA modules are on: floor(share x count)."""
    return math.floor(_product(share, count))


def shortcut_budget(share: float, count: int) -> int:
    """Return how many of `count` shortcut modules are on: share x count, halves to the even number."""
    return round(_product(share, count))


def groups(
    keys: Collection[SiteKey], share: float, mode: Mode, where: str = "--turn-on-percentile"
) -> list[tuple[tuple[SiteKey, ...], int]]:
    """Return the rankings that are made: the modules of each, in order, and how many of them are on.

    `off` ranks the LoRA modules and says nothing about shortcuts; `combined` ranks both together under the
    sum of their budgets; `separated` ranks each under its own budget, which may be 0 for one of them.

    Args:
        keys: the eligible modules.
        share: part of them that is on, in (0, 1].
        mode: how shortcuts take part.
        where: what the share is called in a refusal.

    Raises:
        InputFault: when nothing would be on.
    """
    ordered = sorted(set(keys))
    lora = tuple(key for key in ordered if not is_shortcut(key))
    shortcuts = tuple(key for key in ordered if is_shortcut(key)) if mode != "off" else ()
    budgets = lora_budget(share, len(lora)), shortcut_budget(share, len(shortcuts))
    if not sum(budgets):
        raise InputFault(f"{where}: {_nothing_on(share, len(lora), len(shortcuts))}")
    if mode == "combined":
        return [(tuple(sorted((*lora, *shortcuts))), sum(budgets))]
    return [(group, budget) for group, budget in zip((lora, shortcuts), budgets) if group]


def allocate(
    scores: Mapping[SiteKey, float],
    share: float,
    mode: Mode,
    draws: Random,
    where: str = "--turn-on-percentile",
) -> dict[SiteKey, bool]:
    """Decide for every ranked module whether it is on; in mode `off` shortcuts are not among them.

    Args:
        scores: module -> score.
        share: part of the modules that is on, in (0, 1].
        mode: how shortcuts take part.
        draws: generator of this decision alone, which breaks ties.
        where: what the share is called in a refusal.

    Raises:
        InputFault: when nothing would be on.
        NonFiniteFault: when a score is no finite number.
    """
    decided = {}
    for group, budget in groups(scores, share, mode, where):
        kept = keep({key: scores[key] for key in group}, budget, draws)
        decided |= {key: key in kept for key in group}
    return dict(sorted(decided.items()))


def keep(scores: Mapping[SiteKey, float], budget: int, draws: Random) -> frozenset[SiteKey]:
    """Return the `budget` modules with the largest scores.

    Every module above the score of the last place is kept; the places that remain are drawn uniformly,
    without replacement, among those that share that score.

    Raises:
        NonFiniteFault: when a score is no finite number.
    """
    return frozenset(_ranking(scores, draws)[:budget])


def keep_within(
    scores: Mapping[SiteKey, float], sizes: Mapping[SiteKey, int], budget: int, draws: Random
) -> frozenset[SiteKey]:
    """Return the modules that a budget of parameters pays for, the largest scores first.

    Down the ranking every module is kept that fits into what is left; one that does not fit is passed over,
    so that at the end no module that is off would still fit. Modules of one score come in drawn order.

    Args:
        scores: module -> score.
        sizes: module -> its parameters.
        budget: parameters.
        draws: generator of this decision alone.

    Raises:
        InputFault: when no module fits.
        NonFiniteFault: when a score is no finite number.
    """
    kept, left = set(), budget
    for key in _ranking(scores, draws):
        if sizes[key] <= left:
            kept.add(key)
            left -= sizes[key]
    if not kept:
        least = min((sizes[key] for key in scores), default=0)
        what = f"{budget} parameters turn on none of {len(scores)} modules"
        raise InputFault(f"--budget-params: {what}; the smallest has {least}")
    return frozenset(kept)


def tied_at_the_border(scores: Mapping[SiteKey, float], kept: Collection[SiteKey]) -> tuple[int, int]:
    """Return how many modules share the score of the last place and how many of them were drawn, or 0, 0."""
    last = min((rounded(scores[key]) for key in scores if key in kept), default=None)
    tied = [key for key in scores if rounded(scores[key]) == last]
    drawn = sum(key in kept for key in tied)
    return (len(tied), drawn) if drawn < len(tied) else (0, 0)


def _ranking(scores: Mapping[SiteKey, float], draws: Random) -> list[SiteKey]:
    """Return the modules by falling score, those of one score in drawn order."""
    bad = [key for key in sorted(scores) if not math.isfinite(scores[key])]
    if bad:
        shown = ", ".join(f"{key} has {scores[key]}" for key in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise NonFiniteFault(f"scores: not finite: {shown}{more}")
    lots = {key: draws.random() for key in sorted(scores)}
    return sorted(lots, key=lambda key: (-rounded(scores[key]), lots[key]))


def _product(share: float, count: int) -> float:
    # 0.29 x 100 is 28.999999999999996 in binary; its digits beyond the ninth decimal place mean nothing.
    return round(share * count, 9)


def _nothing_on(share: float, lora: int, shortcuts: int) -> str:
    also = f" and {shortcuts} shortcuts" if shortcuts else ""
    what = f"{share:g} of {lora} modules{also} turns on none"
    least = least_share(lora, shortcuts)
    return f"{what}; the smallest that turns one on is {least:g}" if least else f"{what}, there are none"


def least_share(lora: int, shortcuts: int = 0) -> float | None:
    """Return the smallest share, to its fourth digit, that turns a module on; None without modules."""
    counts = [count for count, budget in ((lora, lora_budget), (2 * shortcuts, shortcut_budget)) if count]
    if not counts:
        return None
    exact = 1 / max(counts)
    step = 10.0 ** (math.floor(math.log10(exact)) - 3)
    steps = math.floor(exact / step)
    while not lora_budget(least := round(steps * step, 12), lora) + shortcut_budget(least, shortcuts):
        steps += 1
    return least
