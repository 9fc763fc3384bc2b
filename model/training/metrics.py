"""Metrics by name, each a torchmetrics object that accumulates over batches and processes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, PearsonCorrCoef, SpearmanCorrCoef, SumMetric
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)


class MatthewsCorrelation(MulticlassConfusionMatrix):
    """Matthews correlation from the confusion matrix n_lp of labels l and predictions p.

    With N pairs, l_c of them with label c and p_c with prediction c:

        R = (N sum_c n_cc - sum_c l_c p_c) / sqrt((N^2 - sum_c l_c^2) (N^2 - sum_c p_c^2))

    Source: Gorodkin 2004, the R_K statistic.
    Differs: 0 where only one class is predicted or present, as papers and sklearn have it; torchmetrics' own
    gives such a constant prediction of two classes a value that depends on their shares, 0.47 for 8 to 2.
    """

    def compute(self) -> Tensor:
        """Return the correlation, a scalar in float64."""
        counts = self.confmat.double()  # (C, C), label by prediction
        labels, predictions, total = counts.sum(1), counts.sum(0), counts.sum()
        covariance = counts.trace() * total - labels @ predictions
        spread = (total**2 - labels @ labels) * (total**2 - predictions @ predictions)
        return torch.where(spread > 0, covariance / spread.clamp_min(1.0).sqrt(), 0.0)


_CLASS_METRICS: Mapping[str, Callable[[int], Metric]] = {
    "accuracy": lambda classes: MulticlassAccuracy(classes, average="micro"),
    "f1": lambda classes: BinaryF1Score(),
    "macro_f1": lambda classes: MulticlassF1Score(classes, average="macro"),
    "matthews": MatthewsCorrelation,
}


def _spearman() -> Metric:
    """Return the metric without its advice on memory: a validation set of numbers is small."""
    with warnings.catch_warnings(action="ignore"):
        return SpearmanCorrCoef()


_VALUE_METRICS: Mapping[str, Callable[[], Metric]] = {
    "pearson": PearsonCorrCoef,
    "spearman": _spearman,
}


class ClassMetrics:
    """Metrics of predicted classes, and the mean loss.

    Like the others here it is no `nn.Module`: a precision plugin would lower the type of its sums.

    Args:
        names: of `accuracy`, `f1`, `macro_f1`, `matthews`; `loss` is always there.
        classes: C.
        device: holds the sums.
    """

    def __init__(self, names: Sequence[str], classes: int, device: torch.device) -> None:
        self.metrics = {name: _CLASS_METRICS[name](classes).to(device) for name in names if name != "loss"}
        self.loss = MeanLoss(device)

    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch. logits: (B, C); labels: (B); losses: (B)."""
        predictions = logits.argmax(-1)
        for metric in self.metrics.values():
            metric.update(predictions, labels)
        self.loss.update(losses.double().sum(), losses.numel())

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches and processes, and reset."""
        return _compute_and_reset(self.metrics) | {"loss": self.loss.compute()}


class ValueMetrics:
    """Metrics of predicted numbers, and the mean squared error as the loss.

    Args:
        names: of `pearson`, `spearman`; `loss` is always there.
        device: holds the sums.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.metrics = {name: _VALUE_METRICS[name]().to(device) for name in names if name != "loss"}
        self.loss = MeanLoss(device)

    def update(self, values: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Add a batch. values, labels, losses: (B)."""
        for metric in self.metrics.values():
            metric.update(values.float(), labels.float())
        self.loss.update(losses.double().sum(), losses.numel())

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches and processes, and reset."""
        return _compute_and_reset(self.metrics) | {"loss": self.loss.compute()}


class TokenMetrics:
    """Loss per target token and its exponential, the perplexity."""

    def __init__(self, device: torch.device) -> None:
        self.loss = MeanLoss(device)

    def update(self, total: Tensor, count: int) -> None:
        """Add a batch. total: scalar, the loss summed over its targets; count: number of its targets."""
        self.loss.update(total, count)

    def compute(self) -> dict[str, float]:
        """Return loss and perplexity = exp(total loss / number of target tokens), and reset."""
        loss = self.loss.compute()
        return {"loss": loss, "perplexity": float(torch.tensor(loss, dtype=torch.float64).exp())}


class MeanLoss:
    """A mean kept as a float64 sum and a count, so that batch sizes do not matter."""

    def __init__(self, device: torch.device) -> None:
        # The type is set last since `to` resets it; by default a NaN would be left out of the sum.
        self.total, self.count = (
            SumMetric(nan_strategy="disable").to(device).set_dtype(torch.float64) for _ in range(2)
        )

    def update(self, total: Tensor, count: int) -> None:
        """Add a sum over `count` items. total: scalar."""
        self.total.update(total.detach().double())
        self.count.update(count)

    def compute(self) -> float:
        """Return the mean over all batches and processes, and reset."""
        value = float(self.total.compute() / self.count.compute())
        self.total.reset()
        self.count.reset()
        return value


class JointUpdate:
    """Update metrics of one set and of all sets together, from one forward pass.

    Args:
        members: metrics of one class; their `update` takes the values of a batch.
    """

    def __init__(self, *members: Any) -> None:
        self.members = members

    def update(self, *values: Any) -> None:
        """Add a batch to each of them."""
        for member in self.members:
            member.update(*values)


def _compute_and_reset(metrics: Mapping[str, Metric]) -> dict[str, float]:
    # A correlation of equal predictions is undefined: NaN, which the summary names; no need to warn as well.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        values = {name: float(metric.compute()) for name, metric in metrics.items()}
    for metric in metrics.values():
        metric.reset()
    return values
