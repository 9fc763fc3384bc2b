"""The number of components that a corpus asks for: the elbow of an error curve, and the report of it.

Source: Tian et al. 2024, 2404.19245, section 3.3 and appendix: TF-IDF, k-means, the elbow of the
within-cluster squared error. The paper reads the elbow off the curve by eye; here it is a rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Method = Literal["kmeans", "dbscan"]
METHODS = ("kmeans", "dbscan")
_DIGITS = 9  # further ones are rounding of the distances, and would break ties by accident


@dataclass(frozen=True)
class Manner:
    """How a corpus is clustered.

    Args:
        method: k-means with the elbow, or DBSCAN.
        kmax: k-means is run for k = 1 .. kmax.
        eps: DBSCAN: cosine distance below which two texts are neighbours.
        min_samples: DBSCAN: neighbours, itself among them, that make a text the core of a cluster.
        max_texts: a larger corpus is represented by so many texts, drawn without replacement.
        seed: of the draw and of k-means.
    """

    method: Method = "kmeans"
    kmax: int = 10
    eps: float = 0.7
    min_samples: int = 10
    max_texts: int = 20_000
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """One k of the curve: the within-cluster squared error, and the distance to the chord (`distances`)."""

    k: int
    error: float
    distance: float


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Args:
        size: its texts.
        share: of the texts that were clustered.
        terms: those by which its mean text exceeds that of the corpus most.
        parts: part of a mixture, or file -> texts of it that are here; empty where there is one.
    """

    size: int
    share: float
    terms: Sequence[str]
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What clustering a corpus gave.

    Args:
        chosen: N, the number of components.
        manner: how it was found.
        texts: texts of the corpus.
        clustered: texts that were clustered: drawn, and with at least one term.
        vocabulary: terms.
        clusters: the largest first.
        curve: error by k; empty for DBSCAN.
        noise: texts that DBSCAN gives to no cluster.
    """

    chosen: int
    manner: Manner
    texts: int
    clustered: int
    vocabulary: int
    clusters: Sequence[Cluster]
    curve: Sequence[Point] = ()
    noise: int | None = None

    def table(self) -> dict[str, Any]:
        """Return the report as TOML and JSON hold it; of the manner what the method uses."""
        others = ("eps", "min_samples") if self.manner.method == "kmeans" else ("kmax",)
        table = {"chosen": self.chosen}
        table |= {name: value for name, value in asdict(self.manner).items() if name not in others}
        table |= {"texts": self.texts, "clustered": self.clustered, "vocabulary": self.vocabulary}
        table |= {} if self.noise is None else {"noise": self.noise}
        table |= {"curve": [asdict(point) for point in self.curve]} if self.curve else {}
        return table | {"clusters": [_listed(cluster) for cluster in self.clusters]}

    def facts(self) -> str:
        """Say in a line what was clustered."""
        noise = "" if self.noise is None else f", {self.noise:,} are noise"
        return (
            f"{self.clustered:,} of {self.texts:,} texts, {self.vocabulary:,} terms,"
            f" {self.manner.method}{noise}: N = {self.chosen}"
        )


def elbow(errors: Mapping[int, float]) -> int:
    """Return the k whose point lies farthest from the chord; of equal ones the smallest.

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


def _listed(cluster: Cluster) -> dict[str, Any]:
    table = asdict(cluster) | {"terms": list(cluster.terms)}
    return {name: value for name, value in table.items() if name != "parts" or value}
