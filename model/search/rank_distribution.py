"""Ranks in proportion to scores, with as many parameters as one rank for all modules would have.

    t_i = min(max(f s_i, 1), max_rank), with f such that sum_i c_i t_i = P = rank x sum_i c_i

for scores s_i and costs c_i = D_in + D_out, the parameters of one rank.
Differs from HeteroLoRA, which gives every selected module the same rank; an option, not the default.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Mapping

from configs.runtime.faults import InputFault
from model.search.allocation import rounded
from model.site import SiteKey

_LEAST_SHARE = 1e-300


def distribute_ranks(
    scores: Mapping[SiteKey, float], costs: Mapping[SiteKey, int], rank: int, max_rank: int
) -> dict[SiteKey, int]:
    """Return a rank from 1 to `max_rank` for each module.

    Each module gets floor(t). The rest of P is distributed one rank at a time to the module furthest below
    its t whose cost still fits (of equal ones the first by layer and role), until none fits. So P is never
    exceeded, and it is met exactly if all costs are equal. A score below 0 counts as 0; equal scores get
    equal ranks except for that rest.

    Args:
        scores: selected module -> score.
        costs: selected module -> parameters of one rank, D_in + D_out.
        rank: the rank that fixes the total P.
        max_rank: the largest rank of a module.

    Raises:
        InputFault: when `max_rank` is below `rank`, so that P cannot be reached.
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
        # What does not fit now never will: the rest only shrinks.
        if ranks[key] < max_rank and costs[key] <= left:
            ranks[key] += 1
            left -= costs[key]
            heapq.heappush(waiting, (lack + 1, key))
    return ranks


def _exact_ranks(
    scores: Mapping[SiteKey, float], costs: Mapping[SiteKey, int], total: int, max_rank: int
) -> dict[SiteKey, float]:
    """Return t of each module: the cost is linear in f between the values at which a t reaches a bound."""
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
    after = bisect_right([cost(bound) for bound in bounds], total)
    if after == len(bounds):
        return at(bounds[-1])
    low, high = bounds[after - 1], bounds[after]
    return at(low + (high - low) * (total - cost(low)) / (cost(high) - cost(low)))
