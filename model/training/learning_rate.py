"""Learning rates as a pure function of the step."""

import math


def learning_rate(step: int, *, base: float, total: int, warmup: int, kind: str, lowest: float) -> float:
    """Return the learning rate of optimiser step `step`, counted from 0.

    Args:
        step: which update, 0 for the first.
        base: the rate at the top.
        total: number of updates in the run.
        warmup: updates of linear warm-up from 0; step `warmup` is the first at the full rate.
        kind: `none` (constant), `linear` or `cosine_annealing`; both fall to `lowest` at step `total`.
        lowest: the rate they end at (`--eta-min`).
    """
    if step < warmup:
        return base * step / warmup
    if kind == "none":
        return base
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    share = 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return lowest + (base - lowest) * share
