"""How often the parts of a mixture are drawn: pure functions of sizes and weights.

An epoch holds N = n_1 + ... + n_K examples, as many as the parts together. Part k gives q_k of them:
N w_k / (w_1 + ... + w_K), rounded by largest remainders so that the q_k sum to N. Without weights q_k = n_k:
each example once.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from configs.runtime.seeds import derive


def quotas(sizes: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """Return how many examples each part gives to an epoch; they sum to that of the sizes.

    Args:
        sizes: examples of each part.
        weights: relative, above 0; None for the sizes themselves.
    """
    if weights is None:
        return list(sizes)
    total = sum(sizes)
    exact = [total * (weight / sum(weights)) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: (counts[part] - exact[part], part))
    for part in by_remainder[: total - sum(counts)]:
        counts[part] += 1
    return counts


def stored_order(sizes: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Return an epoch's examples without chance, the parts evenly interleaved, each in its own stored order.

    Example j of the q_k of part k stands at (j + 1/2) / q_k of the way; a short part begins again.

    Args:
        sizes: examples of each part; the parts are numbered through, one behind the other.
        counts: examples each part gives (`quotas`).
    """
    starts = [sum(sizes[:part]) for part in range(len(sizes))]
    places = [((j + 0.5) / count, part, j) for part, count in enumerate(counts) for j in range(count)]
    return [starts[part] + j % sizes[part] for _, part, j in sorted(places)]


Draw = Callable[[int], Tensor]
"""Epoch -> (count,) the examples it holds, in no particular order."""


def mixture_draw(sizes: Sequence[int], counts: Sequence[int], seed: int) -> Draw:
    """Return the draw of a mixture: each part is gone through in shuffled rounds, over all epochs.

    Part k is an endless row of rounds, each a permutation of its n_k examples; epoch e takes places e q_k to
    (e + 1) q_k - 1 of it. No example comes again before all others of its part were taken.

    Args:
        sizes: examples of each part; the parts are numbered through, one behind the other.
        counts: examples q_k each part gives to an epoch.
        seed: the run's seed.
    """
    return partial(_mixture_epoch, tuple(sizes), tuple(counts), seed)


def _mixture_epoch(sizes: Sequence[int], counts: Sequence[int], seed: int, epoch: int) -> Tensor:
    drawn, start = [torch.empty(0, dtype=torch.int64)], 0
    for part, (size, count) in enumerate(zip(sizes, counts)):
        begin, end = epoch * count, (epoch + 1) * count
        for turn in range(begin // size, -(-end // size)):
            generator = torch.Generator().manual_seed(derive(seed, "mixture", part, turn))
            order = start + torch.randperm(size, generator=generator)  # (size,)
            drawn.append(order[max(begin - turn * size, 0) : end - turn * size])
        start += size
    return torch.cat(drawn)
