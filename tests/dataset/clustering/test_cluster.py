"""Corpora of planted groups: the curve is the formula's, the number is found, seeds decide."""

import math

import numpy
import pytest

from configs.runtime.faults import InputFault
from dataset.clustering.cluster import assign_clusters, cluster, training_texts
from dataset.clustering.elbow import elbow
from dataset.clustering.report import ClusterOptions
from dataset.task import Example

GROUPS = (
    ("pens", "school", "teacher", "pupil", "desk", "chalk"),
    ("rain", "cloud", "storm", "wind", "snow", "frost"),
    ("bread", "oven", "flour", "butter", "sugar", "dough"),
    ("wheel", "engine", "brake", "road", "tyre", "driver"),
)


def planted(count: int, groups: int) -> list[str]:
    """Return texts of four of the six words of a group each."""
    return [
        " ".join(GROUPS[at % groups][(at // groups + step) % 6] for step in range(4)) for at in range(count)
    ]


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_planted_groups_are_found(groups):
    report = cluster({"all": planted(48 * groups // 2, groups)}, ClusterOptions(kmax=8))
    assert report.chosen == groups
    assert [one.size for one in report.clusters] == [24] * groups
    assert {frozenset(one.terms) for one in report.clusters} == {frozenset(one) for one in GROUPS[:groups]}
    assert report.chosen == elbow({point.k: point.error for point in report.curve})


def test_the_error_of_one_cluster_is_the_formula():
    texts = ["pens pens school", "rain cloud 7 a", "pens rain"]
    words = ["cloud", "pens", "rain", "school"]
    counts = numpy.array([[text.split().count(word) for word in words] for text in texts], dtype=float)
    idf = [1 + math.log((1 + 3) / (1 + held)) for held in (counts > 0).sum(axis=0)]
    vectors = counts * idf
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    error = ((vectors - vectors.mean(axis=0)) ** 2).sum()
    report = cluster({"all": texts}, ClusterOptions())
    assert report.curve[0].error == pytest.approx(error, rel=1e-12)
    assert report.vocabulary == len(words)  # no figures, no single letters
    assert [point.k for point in report.curve] == [1, 2, 3]  # three texts make three clusters at most
    assert report.curve[2].error == pytest.approx(0, abs=1e-12)


def test_equal_seeds_give_equal_reports_and_a_large_corpus_is_drawn_from():
    texts = planted(60, 3)
    options = ClusterOptions(kmax=4, max_texts=30, seed=3)
    first = cluster({"all": texts}, options)
    assert first == cluster({"all": texts}, options)
    assert (first.texts, first.clustered) == (60, 30)
    other = cluster({"all": texts}, ClusterOptions(kmax=4, max_texts=30, seed=4))
    assert [one.size for one in first.clusters] != [one.size for one in other.clusters]


def test_dbscan_counts_clusters_without_noise():
    texts = planted(40, 2) + ["singular", "unique", "lonely"]
    report = cluster({"all": texts}, ClusterOptions("dbscan", eps=0.7, min_samples=5))
    assert (report.chosen, report.noise, [one.size for one in report.clusters]) == (2, 3, [20, 20])
    assert report.curve == []


def test_dbscan_of_noise_alone_is_one_component():
    report = cluster({"all": ["singular", "unique", "lonely"]}, ClusterOptions("dbscan", min_samples=2))
    assert (report.chosen, report.noise, list(report.clusters)) == (1, 3, [])


def test_parts_are_counted_in_every_cluster():
    report = cluster({"a": planted(20, 1), "b": planted(30, 3)}, ClusterOptions(kmax=6))
    assert report.chosen == 3
    assert sum(one.parts.get("a", 0) for one in report.clusters) == 20
    assert report.clusters[0].parts == {"a": 20, "b": 10}
    assert report.clusters[1].parts == {"b": 10}


def test_equal_texts_are_one_cluster_and_empty_ones_are_left_out():
    report = cluster({"all": ["rain and snow"] * 5 + ["7 8", ""]}, ClusterOptions())
    assert (report.chosen, report.texts, report.clustered) == (1, 7, 5)
    assert report.clusters[0].terms == ["rain", "snow"]


def test_a_corpus_without_a_term_is_refused():
    with pytest.raises(InputFault, match="none of 2 texts holds a term"):
        cluster({"all": ["1 2 3", "the and of"]}, ClusterOptions())


def test_a_text_is_input_and_response():
    pair = Example(("first", "second"), label=1)
    prompt = Example(("asks",), response="answers")
    assert [text.split() for text in training_texts([pair, prompt])] == [
        ["first", "second"],
        ["asks", "answers"],
    ]


def test_texts_are_assigned_in_the_reports_order():
    texts = planted(20, 1) + ["1 2"] + planted(24, 3)
    report, assigned = assign_clusters({"all": texts}, ClusterOptions(kmax=6))
    assert report == cluster({"all": texts}, ClusterOptions(kmax=6))
    assert (
        [assigned.count(number) for number in range(3)] == [one.size for one in report.clusters] == [28, 8, 8]
    )
    assert assigned[20] is None
    assert set(assigned[:20]) == {0}


def test_what_was_not_drawn_is_assigned_by_the_centres_and_by_dbscan_to_nothing():
    texts = planted(60, 3) + ["1 2"]
    _, assigned = assign_clusters({"all": texts}, ClusterOptions(kmax=5, max_texts=30, seed=3))
    assert [len(set(assigned[at:60:3])) for at in range(3)] == [1, 1, 1]
    assert assigned[60] is None
    report, assigned = assign_clusters({"all": texts}, ClusterOptions("dbscan", min_samples=3, max_texts=40))
    assert sum(label is not None for label in assigned) == report.clustered - report.noise
