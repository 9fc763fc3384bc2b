"""How often the parts of a mixture are drawn: pure functions of sizes and weights.

An epoch holds N = n_1 + ... + n_K examples, as many as the parts together. Part k gives q_k of them:
N w_k / (w_1 + ... + w_K), rounded by largest remainders so that the q_k sum to N. Without weights q_k = n_k:
each example once.
"""

from collections.abc import Sequence


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
