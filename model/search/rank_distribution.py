"""Ranks in proportion to scores, at the parameters that one rank for all would cost.

Differs from HeteroLoRA, which gives every kept module the same rank; an option, not the default.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Mapping

from configs.runtime.faults import InputFault
from model.search.allocation import rounded
from model.site import SiteKey

_LEAST_SHARE = 1e-300


def spread(
    scores: Mapping[SiteKey, float], costs: Mapping[SiteKey, int], rank: int, max_rank: int
) -> dict[SiteKey, int]:
    """Return a rank from 1 to `max_rank` for each module.

    The total P = rank x sum of costs is what the modules would cost at `rank` each. The exact ranks are
    t = min(max(f x score, 1), max_rank), with f such that sum of cost x t = P; each module gets t cut to a
    whole number. What is left of P is given out one rank at a time to the module that lacks most of its t and
    whose cost still fits (of equal ones the first by layer and role), until none fits. So P is never
    exceeded, and it is met exactly where all costs are equal. A score below 0 counts as 0; equal scores get
    equal ranks but for that remainder.

    Args:
        scores: kept module -> score.
        costs: kept module -> parameters of one rank, D_in + D_out.
        rank: the rank that fixes the total.
        max_rank: the largest rank a module gets.

    Raises:
        InputFault: when `max_rank` is below `rank`, so that the total cannot be spent.
    """
    if max_rank < rank:
        raise InputFault(f"--max-rank: must be at least --rank, {rank}, got {max_rank}")
    keys = sorted(scores)
    total = rank * sum(costs[key] for key in keys)
    exact = _exact_ranks({key: max(rounded(scores[key]), 0.0) for key in keys}, costs, total, max_rank)
    ranks = {key: math.floor(exact[key]) for key in keys}
    left = total - sum(costs[key] * ranks[key] for key in keys)
    waiting = [(ranks[key] - exact[key], key) for key in keys]
    heapq.heapify(waiting)
    while waiting:
        lack, key = heapq.heappop(waiting)
        # What does not fit now never will: the remainder only shrinks.
        if ranks[key] < max_rank and costs[key] <= left:
            ranks[key] += 1
            left -= costs[key]
            heapq.heappush(waiting, (lack + 1, key))
    return ranks


def _exact_ranks(
    scores: Mapping[SiteKey, float], costs: Mapping[SiteKey, int], total: int, max_rank: int
) -> dict[SiteKey, float]:
    """Return t of each module: between the factors at which one meets a bound the cost is a line."""
    top = max(scores.values(), default=0.0)
    if top == 0.0:
        scores, top = dict.fromkeys(scores, 1.0), 1.0
    shares = {key: score / top for key, score in scores.items()}

    def at(factor: float) -> dict[SiteKey, float]:
        return {key: min(max(factor * share, 1.0), float(max_rank)) for key, share in shares.items()}

    def cost(factor: float) -> float:
        ranks = at(factor)
        return math.fsum(costs[key] * ranks[key] for key in ranks)

    counted = {share for share in shares.values() if share > _LEAST_SHARE}
    bounds = sorted({bound / share for share in counted for bound in (1, max_rank)})
    after = bisect_right(bounds, total, key=cost)
    if after == len(bounds):
        return at(bounds[-1])
    low, high = bounds[after - 1], bounds[after]
    return at(low + (high - low) * (total - cost(low)) / (cost(high) - cost(low)))
