"""How a corpus is clustered, and what clustering it gave."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Method = Literal["kmeans", "dbscan"]
METHODS = ("kmeans", "dbscan")


@dataclass(frozen=True)
class ClusterOptions:
    """How a corpus is clustered.

    Args:
        method: k-means with the elbow, or DBSCAN.
        kmax: k-means is run for k = 1 .. kmax.
        eps: DBSCAN: largest cosine distance of two neighbours.
        min_samples: DBSCAN: number of neighbours, itself included, that make a text a core point.
        max_texts: a larger corpus is represented by this number of texts, drawn without replacement.
        seed: seed of the draw and of k-means.
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
        size: number of its texts.
        share: `size` relative to all clustered texts.
        terms: the terms by which its mean vector exceeds that of the corpus most.
        parts: part of a mixture, or file -> number of its texts in the cluster; empty for a single source.
    """

    size: int
    share: float
    terms: Sequence[str]
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterReport:
    """The result of clustering a corpus.

    Args:
        chosen: N, the number of components.
        options: how it was found.
        texts: number of texts of the corpus.
        clustered: number of texts that were clustered: drawn, and with at least one term.
        vocabulary: number of terms.
        clusters: the clusters, largest first.
        curve: error by k; empty for DBSCAN.
        noise: number of texts that DBSCAN assigns to no cluster; None for k-means.
    """

    chosen: int
    options: ClusterOptions
    texts: int
    clustered: int
    vocabulary: int
    clusters: Sequence[Cluster]
    curve: Sequence[Point] = ()
    noise: int | None = None

    def table(self) -> dict[str, Any]:
        """Return the report as TOML and JSON hold it, with those options that the method uses."""
        unused = ("eps", "min_samples") if self.options.method == "kmeans" else ("kmax",)
        table: dict[str, Any] = {"chosen": self.chosen}
        table |= {name: value for name, value in asdict(self.options).items() if name not in unused}
        table |= {"texts": self.texts, "clustered": self.clustered, "vocabulary": self.vocabulary}
        table |= {} if self.noise is None else {"noise": self.noise}
        table |= {"curve": [asdict(point) for point in self.curve]} if self.curve else {}
        return table | {"clusters": [_table(cluster) for cluster in self.clusters]}

    def summary(self) -> str:
        """Return in one line what was clustered and how many clusters there are."""
        noise = "" if self.noise is None else f", {self.noise:,} are noise"
        return (
            f"{self.clustered:,} of {self.texts:,} texts, {self.vocabulary:,} terms,"
            f" {self.options.method}{noise}: N = {self.chosen}"
        )


def _table(cluster: Cluster) -> dict[str, Any]:
    table = asdict(cluster) | {"terms": list(cluster.terms)}
    return {name: value for name, value in table.items() if name != "parts" or value}
