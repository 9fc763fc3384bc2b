"""Which examples of a mixture's parts form an epoch: pure functions of sizes, weights, seed and epoch.

An epoch holds N = n_1 + ... + n_K examples, as many as all parts together. Part k contributes q_k of them:
N w_k / (w_1 + ... + w_K), rounded by largest remainders so that the q_k sum to N. Without weights q_k = n_k:
each example once.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from configs.runtime.seeds import derive
from dataset.encoding.encoded_split import Draw


def quotas(sizes: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """Return how many examples each part contributes to an epoch; they sum to the sum of the sizes.

    Args:
        sizes: number of examples of each part.
        weights: relative shares, above 0; None for shares by size.
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
    """Return the examples of an epoch in a fixed order: parts evenly interleaved, each in its stored order.

    Example j of the q_k of part k is at position (j + 1/2) / q_k of the epoch; a part with fewer than q_k
    examples begins again.

    Args:
        sizes: number of examples of each part; example indices run through the concatenated parts.
        counts: number of examples that each part contributes (`quotas`).
    """
    starts = [sum(sizes[:part]) for part in range(len(sizes))]
    positions = [((j + 0.5) / count, part, j) for part, count in enumerate(counts) for j in range(count)]
    return [starts[part] + j % sizes[part] for _, part, j in sorted(positions)]


def mixture_draw(sizes: Sequence[int], counts: Sequence[int], seed: int) -> Draw:
    """Return how the epochs of a mixture are drawn: each part is traversed in shuffled rounds, across epochs.

    The rounds of part k, each a permutation of its n_k examples, form an endless sequence; epoch e takes its
    elements e q_k to (e + 1) q_k - 1. No example is repeated before all others of its part were taken.

    Args:
        sizes: number of examples of each part; example indices run through the concatenated parts.
        counts: number of examples q_k that each part contributes to an epoch.
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
