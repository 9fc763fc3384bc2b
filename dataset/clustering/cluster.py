"""Cluster a corpus: TF-IDF vectors of its texts, then k-means with the elbow, or DBSCAN.

A term is a run of two or more letters in lower case, not one of scikit-learn's English stop words; the 10,000
most frequent are kept. A text's vector holds count times 1 + ln((1 + n) / (1 + d)) for n texts and d that
hold the term, scaled to length 1. Texts without a term are left out. k-means starts ten times from
k-means++; DBSCAN's distance is 1 - cosine. Everything runs in one thread, so that sums have one order.
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
from dataset.clustering.elbow import Cluster, Manner, Point, Report, distances, elbow
from dataset.rows.task_rows import TaskRows
from dataset.task import Example

_TERM = r"[^\W\d_]{2,}"
_MOST_TERMS = 10_000
_STARTS = 10
_SHOWN_TERMS = 10


def training_texts(examples: Sequence[Example]) -> list[str]:
    """Return what is clustered of examples: all their input, and the response where there is one."""
    return ["\n".join([*example.texts, example.response or ""]) for example in examples]


class _Clustered(NamedTuple):
    """A clustered corpus: its report, text -> cluster for those that took part, and where others would be."""

    report: Report
    known: Mapping[int, int | None]
    vectorizer: TfidfVectorizer
    nearest: Callable[[Any], Sequence[int]] | None


def cluster(corpus: Mapping[str, Sequence[str]], manner: Manner) -> Report:
    """Cluster the texts of all parts together.

    Args:
        corpus: part of a mixture, or file -> its texts.
        manner: how.

    Raises:
        InputFault: when no text holds a term.
    """
    return _clustered(corpus, manner).report


def placed(corpus: Mapping[str, Sequence[str]], manner: Manner) -> tuple[Report, list[int | None]]:
    """Cluster as `cluster` does, and say where each text is.

    Returns:
        The report, and the cluster of every text, part by part, counted from 0 in the report's order. Texts
        that were not drawn go to the nearest centre. None: texts without a term; of DBSCAN, which has no
        centres, noise and texts that were not drawn.
    """
    report, known, vectorizer, nearest = _clustered(corpus, manner)
    texts = [text for texts in corpus.values() for text in texts]
    others = sorted(set(range(len(texts))) - set(known)) if nearest is not None else []
    if others:
        vectors = vectorizer.transform(texts[row] for row in others)
        held = _with_terms(vectors)
        clusters = nearest(vectors[held]) if len(held) else []
        known = {**known, **dict(zip((others[at] for at in held), clusters))}
    return report, [known.get(row) for row in range(len(texts))]


def _clustered(corpus: Mapping[str, Sequence[str]], manner: Manner) -> _Clustered:
    pairs = [(part, text) for part, texts in corpus.items() for text in texts]
    drawn = _drawn(len(pairs), manner)
    parts, texts = [pairs[row][0] for row in drawn], [pairs[row][1] for row in drawn]
    vectorizer = TfidfVectorizer(token_pattern=_TERM, stop_words="english", max_features=_MOST_TERMS)
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # of an empty vocabulary; it has no class of its own
        raise InputFault(f"corpus: none of {len(texts)} texts holds a term to cluster by") from None
    kept = _with_terms(vectors)
    vectors, parts = vectors[kept], [parts[row] for row in kept]
    is_kmeans = manner.method == "kmeans"
    with threadpool_limits(limits=1):
        errors, fit = _kmeans(vectors, manner) if is_kmeans else _dbscan(vectors, manner)
    labels, apart = fit.labels_, distances(errors)
    order = _by_size(labels)
    found = _clusters(vectors, labels, parts if len(corpus) > 1 else [], vectorizer)
    report = Report(
        chosen=max(1, len(found)),
        manner=manner,
        texts=len(pairs),
        clustered=len(kept),
        vocabulary=vectors.shape[1],
        clusters=found,
        curve=[Point(k, error, apart[k]) for k, error in errors.items()],
        noise=None if is_kmeans else int((labels < 0).sum()),
    )
    known = {drawn[row]: order.get(int(label)) for row, label in zip(kept, labels)}
    return _Clustered(report, known, vectorizer, partial(_nearest, fit, order) if is_kmeans else None)


def cluster_rows(rows: TaskRows, seed: int) -> Report:
    """Cluster what a run learns from, with k-means and the elbow.

    Args:
        rows: the run's rows; all its training splits are clustered together.
        seed: the run's seed.
    """
    names = rows.parts or {rows.task.name: ["train"]}
    corpus = {
        part: training_texts(rows.splits[name].examples)
        for part, held in names.items()
        for name in held
        if name.partition("_")[0] == "train"
    }
    return cluster(corpus, Manner(seed=seed))


def _drawn(total: int, manner: Manner) -> Sequence[int]:
    if total <= manner.max_texts:
        return range(total)
    rows = random.Random(derive(manner.seed, "clusters", "texts")).sample(range(total), manner.max_texts)
    return sorted(rows)


def _kmeans(vectors: Any, manner: Manner) -> tuple[dict[int, float], Any]:
    """Return k -> squared error, and what was fitted at the elbow."""
    state = derive(manner.seed, "clusters", "kmeans") % 2**32
    most = min(manner.kmax, _distinct(vectors))
    fits = {
        k: KMeans(k, init="k-means++", n_init=_STARTS, random_state=state).fit(vectors)
        for k in range(1, most + 1)
    }
    errors = {k: float(fit.inertia_) for k, fit in fits.items()}
    return errors, fits[elbow(errors)]


def _dbscan(vectors: Any, manner: Manner) -> tuple[dict[int, float], Any]:
    return {}, DBSCAN(eps=manner.eps, min_samples=manner.min_samples, metric="cosine").fit(vectors)


def _nearest(fit: KMeans, order: Mapping[int, int], vectors: Any) -> list[int]:
    """Return the clusters whose centres are nearest."""
    with threadpool_limits(limits=1):
        return [order[int(label)] for label in fit.predict(vectors)]


def _with_terms(vectors: Any) -> Any:
    """Return the rows that hold a term."""
    return numpy.flatnonzero(numpy.diff(vectors.indptr))


def _by_size(labels: Any) -> dict[int, int]:
    """Return label -> its place, the largest cluster first; noise, below 0, has none."""
    sizes = Counter(int(label) for label in labels if label >= 0)
    ordered = sorted(sizes, key=lambda label: (-sizes[label], label))
    return {label: place for place, label in enumerate(ordered)}


def _distinct(vectors: Any) -> int:
    """Count vectors that differ: k-means cannot make more clusters."""
    rows = zip(vectors.indptr, vectors.indptr[1:])
    return len({(vectors.indices[a:b].tobytes(), vectors.data[a:b].tobytes()) for a, b in rows})


def _clusters(vectors: Any, labels: Any, parts: Sequence[str], vectorizer: Any) -> list[Cluster]:
    """Describe every cluster, the largest first."""
    terms = vectorizer.get_feature_names_out()
    mean = numpy.asarray(vectors.mean(axis=0)).ravel()
    found = []
    for label in _by_size(labels):
        rows = numpy.flatnonzero(labels == label)
        # One cluster has nothing to stand out against.
        excess = numpy.asarray(vectors[rows].mean(axis=0)).ravel() - (mean if len(rows) < len(labels) else 0)
        best = [at for at in numpy.argsort(-excess, kind="stable")[:_SHOWN_TERMS] if excess[at] > 0]
        held = dict(sorted(Counter(parts[row] for row in rows).items())) if parts else {}
        found.append(Cluster(len(rows), len(rows) / len(labels), [str(terms[at]) for at in best], held))
    return found
