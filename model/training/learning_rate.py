"""Learning rates as a pure function of the step."""

import math


def learning_rate(step: int, *, base: float, total: int, warmup: int, kind: str, lowest: float) -> float:
    """Return the learning rate of optimiser step t, counted from 0.

    With w warm-up steps, T steps in all and x = (t - w) / (T - w):

        t < w:             base t / w
        none:              base
        linear:            lowest + (base - lowest) (1 - x)
        cosine_annealing:  lowest + (base - lowest) (1 + cos(pi x)) / 2

    Args:
        step: t.
        base: the peak rate.
        total: T.
        warmup: w; step w is the first at the peak rate.
        kind: `none`, `linear` or `cosine_annealing`.
        lowest: the rate at step T (`--eta-min`).
    """
    if step < warmup:
        return base * step / warmup
    if kind == "none":
        return base
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    share = 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return lowest + (base - lowest) * share
