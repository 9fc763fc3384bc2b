"""Cluster a corpus: TF-IDF vectors of its texts, then k-means with the elbow, or DBSCAN.

A term is a run of two or more letters in lower case that is not one of scikit-learn's English stop words; the
10,000 most frequent are kept. A text's vector holds count times 1 + ln((1 + n) / (1 + d)), for n texts of
which d hold the term, scaled to length 1. Texts without a term are left out. k-means starts ten times from
k-means++; the distance of DBSCAN is 1 - cosine. Everything runs in one thread, so that sums have one order.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy
from sklearn.cluster import DBSCAN, KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from dataset.clustering.elbow import distances, elbow
from dataset.clustering.report import Cluster, ClusterOptions, ClusterReport, Point
from dataset.rows.task_rows import TaskRows
from dataset.task import Example

_TERM = r"[^\W\d_]{2,}"
_MOST_TERMS = 10_000
_STARTS = 10
_SHOWN_TERMS = 10


def training_texts(examples: Sequence[Example]) -> list[str]:
    """Return the text of each example that is clustered: its whole input, and the response if it has one."""
    return ["\n".join([*example.texts, example.response or ""]) for example in examples]


class _Clustered(NamedTuple):
    """A clustered corpus.

    Args:
        report: the result.
        assigned: index of each text that took part -> its cluster; None for noise.
        vectorizer: makes the vectors of further texts.
        nearest: vectors -> their nearest clusters; None for DBSCAN, which has no centres.
    """

    report: ClusterReport
    assigned: Mapping[int, int | None]
    vectorizer: TfidfVectorizer
    nearest: Callable[[Any], Sequence[int]] | None


def cluster(corpus: Mapping[str, Sequence[str]], options: ClusterOptions) -> ClusterReport:
    """Cluster the texts of all parts together.

    Args:
        corpus: part of a mixture, or file -> its texts.
        options: how they are clustered.

    Raises:
        InputFault: when no text holds a term.
    """
    return _clustered(corpus, options).report


def assign_clusters(
    corpus: Mapping[str, Sequence[str]], options: ClusterOptions
) -> tuple[ClusterReport, list[int | None]]:
    """Cluster as `cluster` does, and assign every text to a cluster.

    Args:
        corpus: part of a mixture, or file -> its texts.
        options: how they are clustered.

    Returns:
        The report; and the cluster of every text, part by part, numbered from 0 in the report's order. With
        k-means a text that was not drawn gets the cluster of the nearest centre. None: a text without a term;
        with DBSCAN also noise, and a text that was not drawn.

    Raises:
        InputFault: when no text holds a term.
    """
    report, assigned, vectorizer, nearest = _clustered(corpus, options)
    texts = [text for texts in corpus.values() for text in texts]
    others = sorted(set(range(len(texts))) - set(assigned))
    if others and nearest is not None:
        vectors = vectorizer.transform(texts[row] for row in others)
        held = _with_terms(vectors)
        clusters = nearest(vectors[held]) if len(held) else []
        assigned = {**assigned, **dict(zip((others[at] for at in held), clusters))}
    return report, [assigned.get(row) for row in range(len(texts))]


def _clustered(corpus: Mapping[str, Sequence[str]], options: ClusterOptions) -> _Clustered:
    pairs = [(part, text) for part, texts in corpus.items() for text in texts]
    drawn = _drawn(len(pairs), options)
    parts, texts = [pairs[row][0] for row in drawn], [pairs[row][1] for row in drawn]
    vectorizer = TfidfVectorizer(token_pattern=_TERM, stop_words="english", max_features=_MOST_TERMS)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # an empty vocabulary; the error has no class of its own
        raise InputFault(f"corpus: none of {len(texts)} texts holds a term to cluster by") from None
    kept = _with_terms(vectors)
    vectors, parts = vectors[kept], [parts[row] for row in kept]
    is_kmeans = options.method == "kmeans"
    with threadpool_limits(limits=1):
        errors, fit = _kmeans(vectors, options) if is_kmeans else _dbscan(vectors, options)
    labels, distance = fit.labels_, distances(errors)
    order = _by_size(labels)
    found = _clusters(vectors, labels, parts if len(corpus) > 1 else [], vectorizer)
    report = ClusterReport(
        chosen=max(1, len(found)),
        options=options,
        texts=len(pairs),
        clustered=len(kept),
        vocabulary=vectors.shape[1],
        clusters=found,
        curve=[Point(k, error, distance[k]) for k, error in errors.items()],
        noise=None if is_kmeans else int((labels < 0).sum()),
    )
    assigned = {drawn[row]: order.get(int(label)) for row, label in zip(kept, labels)}
    return _Clustered(report, assigned, vectorizer, partial(_nearest, fit, order) if is_kmeans else None)


def cluster_rows(rows: TaskRows, seed: int) -> ClusterReport:
    """Cluster the training texts of a run, with k-means and the elbow.

    Args:
        rows: the run's rows; all its training splits are clustered together.
        seed: the run's seed.

    Raises:
        InputFault: when no text holds a term.
    """
    names = rows.parts or {rows.task.name: ["train"]}
    corpus = {
        part: training_texts(rows.splits[name].examples)
        for part, held in names.items()
        for name in held
        if name.partition("_")[0] == "train"
    }
    return cluster(corpus, ClusterOptions(seed=seed))


def _drawn(total: int, options: ClusterOptions) -> Sequence[int]:
    if total <= options.max_texts:
        return range(total)
    generator = random.Random(derive(options.seed, "clusters", "texts"))
    return sorted(generator.sample(range(total), options.max_texts))


def _kmeans(vectors: Any, options: ClusterOptions) -> tuple[dict[int, float], Any]:
    """Return k -> squared error, and the k-means that was fitted at the elbow."""
    state = derive(options.seed, "clusters", "kmeans") % 2**32
    most = min(options.kmax, _distinct(vectors))
    fits = {
        k: KMeans(k, init="k-means++", n_init=_STARTS, random_state=state).fit(vectors)
        for k in range(1, most + 1)
    }
    errors = {k: float(fit.inertia_) for k, fit in fits.items()}
    return errors, fits[elbow(errors)]


def _dbscan(vectors: Any, options: ClusterOptions) -> tuple[dict[int, float], Any]:
    return {}, DBSCAN(eps=options.eps, min_samples=options.min_samples, metric="cosine").fit(vectors)


def _nearest(fit: KMeans, order: Mapping[int, int], vectors: Any) -> list[int]:
    """Return the clusters with the nearest centres."""
    with threadpool_limits(limits=1):
        return [order[int(label)] for label in fit.predict(vectors)]


def _with_terms(vectors: Any) -> Any:
    """Return the indices of the rows that hold a term."""
    return numpy.flatnonzero(numpy.diff(vectors.indptr))


def _by_size(labels: Any) -> dict[int, int]:
    """Return label -> its rank by size, the largest cluster first; noise, below 0, has none."""
    sizes = Counter(int(label) for label in labels if label >= 0)
    ordered = sorted(sizes, key=lambda label: (-sizes[label], label))
    return {label: rank for rank, label in enumerate(ordered)}


def _distinct(vectors: Any) -> int:
    """Count the different vectors: k-means cannot make more clusters."""
    rows = zip(vectors.indptr, vectors.indptr[1:])
    return len({(vectors.indices[a:b].tobytes(), vectors.data[a:b].tobytes()) for a, b in rows})


def _clusters(vectors: Any, labels: Any, parts: Sequence[str], vectorizer: Any) -> list[Cluster]:
    """Describe every cluster, the largest first."""
    terms = vectorizer.get_feature_names_out()
    mean = numpy.asarray(vectors.mean(axis=0)).ravel()
    found = []
    for label in _by_size(labels):
        rows = numpy.flatnonzero(labels == label)
        # A single cluster is not compared with the corpus, which it is.
        excess = numpy.asarray(vectors[rows].mean(axis=0)).ravel() - (mean if len(rows) < len(labels) else 0)
        best = [at for at in numpy.argsort(-excess, kind="stable")[:_SHOWN_TERMS] if excess[at] > 0]
        held = dict(sorted(Counter(parts[row] for row in rows.tolist()).items())) if parts else {}
        found.append(Cluster(len(rows), len(rows) / len(labels), [str(terms[at]) for at in best], held))
    return found
