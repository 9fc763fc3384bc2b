"""Metrics are those of the papers' tools, and batches do not matter."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from model.training.metrics import ClassMetrics, MeanLoss, TokenMetrics, ValueMetrics

CPU = torch.device("cpu")
NAMES = ("accuracy", "f1", "macro_f1", "matthews", "loss")


def _sklearn(labels, predictions, names):
    table = {
        "accuracy": lambda: accuracy_score(labels, predictions),
        "f1": lambda: f1_score(labels, predictions, zero_division=0),
        "macro_f1": lambda: f1_score(labels, predictions, average="macro", zero_division=0),
        "matthews": lambda: matthews_corrcoef(labels, predictions),
    }
    return {name: table[name]() for name in names if name in table}


def _fed(classes, names, labels, predictions, cuts=()):
    metrics = ClassMetrics(names, classes, CPU)
    logits = F.one_hot(torch.tensor(predictions), classes).float()
    labels = torch.tensor(labels)
    for start, end in zip((0, *cuts), (*cuts, len(labels))):
        losses = F.cross_entropy(logits[start:end], labels[start:end], reduction="none")
        metrics.update(logits[start:end], labels[start:end], losses)
    return metrics, float(F.cross_entropy(logits.double(), labels))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:A single label")
def test_two_classes_are_as_sklearn_counts_them(pairs):
    labels, predictions = map(list, zip(*pairs))
    metrics, loss = _fed(2, NAMES, labels, predictions)
    expected = _sklearn(labels, predictions, NAMES) | {"loss": loss}
    assert metrics.compute() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:A single label")
def test_three_classes_are_as_sklearn_counts_them(pairs):
    labels, predictions = map(list, zip(*pairs))
    names = ("accuracy", "macro_f1", "matthews")
    metrics, loss = _fed(3, names, labels, predictions)
    assert metrics.compute() == pytest.approx(_sklearn(labels, predictions, names) | {"loss": loss}, abs=1e-6)


@pytest.mark.parametrize("shares", [(8, 2), (2, 8), (5, 5), (10, 0)])
@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_prediction_does_not_correlate(shares, constant):
    labels = [0] * shares[0] + [1] * shares[1]
    metrics, _ = _fed(2, ("matthews",), labels, [constant] * 10)
    assert metrics.compute()["matthews"] == 0.0


def test_two_batches_are_one_batch_and_computing_starts_afresh():
    labels, predictions = [0, 1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 1, 1, 1]
    one, _ = _fed(2, NAMES, labels, predictions)
    two, _ = _fed(2, NAMES, labels, predictions, cuts=(2, 3))
    first = one.compute()
    assert two.compute() == pytest.approx(first, abs=1e-12)
    logits = F.one_hot(torch.tensor(predictions), 2).float()
    losses = F.cross_entropy(logits, torch.tensor(labels), reduction="none")
    one.update(logits, torch.tensor(labels), losses)
    assert one.compute() == first


@pytest.mark.parametrize("cuts", [(), (3,), (1, 17)])
def test_correlations_are_as_scipy_has_them(cuts):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 26, 40) / 5.0  # ties, as in STS-B
    values = labels + draw.normal(size=40)
    metrics = ValueMetrics(("pearson", "spearman"), CPU)
    for start, end in zip((0, *cuts), (*cuts, 40)):
        ours, theirs = torch.tensor(values[start:end]), torch.tensor(labels[start:end])
        metrics.update(ours, theirs, (ours - theirs) ** 2)
    expected = {
        "pearson": pearsonr(values, labels)[0],
        "spearman": spearmanr(values, labels)[0],
        "loss": ((values - labels) ** 2).mean(),
    }
    assert metrics.compute() == pytest.approx(expected, abs=1e-5)


def test_perplexity_is_of_the_mean_over_tokens_not_over_batches():
    metrics, totals, counts = TokenMetrics(CPU), (7.5, 1.25, 40.0), (3, 1, 20)
    for total, count in zip(totals, counts):
        metrics.update(torch.tensor(total), count)
    loss = sum(totals) / sum(counts)
    assert metrics.compute() == pytest.approx({"loss": loss, "perplexity": math.exp(loss)}, rel=1e-15)


def test_a_perplexity_too_large_is_infinite():
    metrics = TokenMetrics(CPU)
    metrics.update(torch.tensor(5000.0), 1)
    assert metrics.compute() == {"loss": 5000.0, "perplexity": math.inf}


def test_the_mean_loss_sums_in_double_precision():
    mean = MeanLoss(CPU)
    for value in (2.0**24, *[1.0] * 64):
        mean.update(torch.tensor(value, dtype=torch.float32), 1)
    assert mean.compute() == (2.0**24 + 64) / 65


def test_a_mean_keeps_what_double_precision_holds():
    mean = MeanLoss(CPU)
    mean.update(torch.tensor(1 / 3, dtype=torch.float64), 1)
    assert mean.compute() == 1 / 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_left_out(value):
    mean = MeanLoss(CPU)
    mean.update(torch.tensor(1.0), 1)
    mean.update(torch.tensor(value), 1)
    assert not math.isfinite(mean.compute())


def test_a_correlation_of_equal_predictions_is_nan_without_a_warning(recwarn):
    found = ValueMetrics(("pearson", "spearman"), torch.device("cpu"))
    found.update(torch.ones(4), torch.arange(4.0), torch.ones(4))
    assert math.isnan(found.compute()["pearson"])
    assert [str(one.message) for one in recwarn] == []
