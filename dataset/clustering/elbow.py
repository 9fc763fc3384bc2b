"""The elbow of an error curve: how many clusters a corpus has.

Source: Tian et al. 2024, 2404.19245, section 3.3 and appendix: TF-IDF, k-means, the elbow of the
within-cluster squared error. The paper reads the elbow off the curve by eye; here it is a rule.
"""

from collections.abc import Mapping

_DIGITS = 9  # further digits are rounding errors of the distances, and would break ties by accident


def elbow(errors: Mapping[int, float]) -> int:
    """Return the k whose point lies farthest from the chord; of equally distant ones the smallest.

    Args:
        errors: k -> within-cluster squared error, for at least one k.
    """
    return max(sorted(errors), key=distances(errors).__getitem__)


def distances(errors: Mapping[int, float]) -> dict[int, float]:
    """Return each point's distance to the chord between the curve's ends, both axes scaled to 0..1.

    With x = (k - k_min) / (k_max - k_min) and y = (e - e_min) / (e_max - e_min) the chord runs from (0, y_0)
    to (1, y_1), and the distance is |y - y_0 - x (y_1 - y_0)| / sqrt(1 + (y_1 - y_0)^2). All are 0 where
    the curve is flat or has fewer than three points.
    """
    ks = sorted(errors)
    low, high = min(errors.values(), default=0.0), max(errors.values(), default=0.0)
    if len(ks) < 3 or low == high:
        return dict.fromkeys(ks, 0.0)
    x = {k: (k - ks[0]) / (ks[-1] - ks[0]) for k in ks}
    y = {k: (errors[k] - low) / (high - low) for k in ks}
    start, slope = y[ks[0]], y[ks[-1]] - y[ks[0]]
    length = (1 + slope**2) ** 0.5
    return {k: round(abs(y[k] - start - x[k] * slope) / length, _DIGITS) for k in ks}
