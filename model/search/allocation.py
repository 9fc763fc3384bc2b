"""Rank scores and cut at a budget, with ties drawn by lot; pure functions.

    LoRA modules on = floor(p n_lora),  shortcuts on = round(p n_shortcut), halves to even
    off:       the largest scores of LoRA modules; shortcuts are not ranked
    combined:  the largest scores of both together, under the sum of both budgets
    separated: the largest scores of each kind, under its own budget

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956), section 3.
Differs: the share p counts as the decimal it is written as (0.29 of 100 modules is 29), not as its binary
approximation; scores are rounded to 9 significant digits first, so that processes which add gradients in
another order decide the same; a budget of 0 is refused; ties are drawn at random from a seed.

Results do not depend on the order in which modules are given: they are sorted before anything is drawn.
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
    """Return a score rounded to 9 significant digits; zero has no sign."""
    return float(f"{score:.{_DIGITS - 1}e}") + 0.0


def lora_budget(share: float, count: int) -> int:
    """Return how many of `count` LoRA modules are on: floor(share x count)."""
    return math.floor(_product(share, count))


def shortcut_budget(share: float, count: int) -> int:
    """Return how many of `count` shortcut modules are on: share x count, halves to the even number."""
    return round(_product(share, count))


def ranked_groups(
    keys: Collection[SiteKey], share: float, mode: Mode, where: str = "--turn-on-percentile"
) -> list[tuple[tuple[SiteKey, ...], int]]:
    """Return the groups that are ranked: the modules of each, in order, and how many of them are on.

    In mode `separated` one of the two budgets may be 0.

    Args:
        keys: the eligible modules.
        share: p, the share of them that is on, in (0, 1].
        mode: how shortcuts are ranked.
        where: the option that gives the share, named in a refusal.

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
    """Decide for every ranked module whether it is on; in mode `off` shortcuts are not ranked.

    Args:
        scores: module -> score.
        share: p, the share of the modules that is on, in (0, 1].
        mode: how shortcuts are ranked.
        draws: generator of this decision only, which breaks ties.
        where: the option that gives the share, named in a refusal.

    Raises:
        InputFault: when nothing would be on.
        NonFiniteFault: when a score is NaN or infinite.
    """
    decided: dict[SiteKey, bool] = {}
    for group, budget in ranked_groups(scores, share, mode, where):
        kept = select_top({key: scores[key] for key in group}, budget, draws)
        decided |= {key: key in kept for key in group}
    return dict(sorted(decided.items()))


def select_top(scores: Mapping[SiteKey, float], budget: int, draws: Random) -> frozenset[SiteKey]:
    """Return the `budget` modules with the largest scores.

    Every module above the last selected score is selected; the remaining places are drawn uniformly, without
    replacement, among the modules with that score.

    Args:
        scores: module -> score.
        budget: number of modules.
        draws: generator of this decision only.

    Raises:
        NonFiniteFault: when a score is NaN or infinite.
    """
    return frozenset(_ranking(scores, draws)[:budget])


def select_within_budget(
    scores: Mapping[SiteKey, float], sizes: Mapping[SiteKey, int], budget: int, draws: Random
) -> frozenset[SiteKey]:
    """Return the modules that fit into a budget of parameters, selected greedily by falling score.

    A module that does not fit into the rest of the budget is skipped, so that in the end none that is off
    would still fit. Modules of equal score are taken in random order.

    Args:
        scores: module -> score.
        sizes: module -> its number of parameters.
        budget: number of parameters.
        draws: generator of this decision only.

    Raises:
        InputFault: when no module fits.
        NonFiniteFault: when a score is NaN or infinite.
    """
    kept: set[SiteKey] = set()
    left = budget
    for key in _ranking(scores, draws):
        if sizes[key] <= left:
            kept.add(key)
            left -= sizes[key]
    if not kept:
        raise too_small(budget, [sizes[key] for key in scores])
    return frozenset(kept)


def too_small(budget: int, sizes: Collection[int]) -> InputFault:
    """Return the refusal of a budget of parameters into which no module fits.

    Args:
        budget: number of parameters.
        sizes: number of parameters of each module.
    """
    which = (
        f"the {len(sizes)} modules; the smallest has {min(sizes)}" if sizes else "a module: there are none"
    )
    return InputFault(f"--budget-params: {budget} parameters are too few for any of {which}")


def ties_at_cutoff(scores: Mapping[SiteKey, float], kept: Collection[SiteKey]) -> tuple[int, int]:
    """Return how many modules have the last selected score and how many of them were drawn; 0, 0 if all."""
    last = min((rounded(scores[key]) for key in scores if key in kept), default=None)
    tied = [key for key in scores if rounded(scores[key]) == last]
    drawn = sum(key in kept for key in tied)
    return (len(tied), drawn) if drawn < len(tied) else (0, 0)


def _ranking(scores: Mapping[SiteKey, float], draws: Random) -> list[SiteKey]:
    """Return the modules by falling score, those of equal score in random order."""
    bad = [key for key in sorted(scores) if not math.isfinite(scores[key])]
    if bad:
        shown = ", ".join(f"{key} has {scores[key]}" for key in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise NonFiniteFault(f"scores: not finite: {shown}{more}")
    order = {key: draws.random() for key in sorted(scores)}
    return sorted(order, key=lambda key: (-rounded(scores[key]), order[key]))


def _product(share: float, count: int) -> float:
    # 0.29 x 100 is 28.999999999999996 in binary; digits beyond the ninth decimal place are rounding error.
    return round(share * count, 9)


def _nothing_on(share: float, lora: int, shortcuts: int) -> str:
    least = smallest_share(lora, shortcuts)
    if least is None:
        return "there are no modules to turn on"
    also = f" and {shortcuts} shortcuts" if shortcuts else ""
    what = f"a share of {share:g} of {lora} modules{also} turns none on"
    return f"{what}; the smallest that turns one on is {least:g}"


def smallest_share(lora: int, shortcuts: int = 0) -> float | None:
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
