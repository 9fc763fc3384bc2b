"""Objectives: the loss that trains on a batch and the metrics that are reported."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any, Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PretrainedConfig, PreTrainedModel

from configs.schema.batch_keys import IGNORE_INDEX, NETWORK_INPUTS
from model.training.metrics import ClassMetrics, TokenMetrics, ValueMetrics

Batch = Mapping[str, Tensor]
"""Key of `configs.schema.batch_keys` -> tensor."""
_LOGITS_AT_ONCE = 2**23
"""Logits of a chunk in the fused head loss: 32 MiB in float32."""


class Evaluation(Protocol):
    """Metrics accumulated over the batches of one evaluation set."""

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches and processes, and reset."""
        ...


class Objective(Protocol):
    """A loss and its metrics. The network is a stock one, called with inputs only, never with labels."""

    def loss(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the batch's mean loss over its targets, a scalar in float32 or float64."""
        ...

    def evaluation(self, device: torch.device) -> Evaluation:
        """Return empty metrics on a device."""
        ...

    def evaluate(self, network: PreTrainedModel, batch: Batch, evaluation: Any) -> None:
        """Add a batch to the metrics.

        Args:
            network: the host.
            batch: tensors by name.
            evaluation: what `evaluation` returned, or a `JointUpdate` of several; each objective has its
                own class.
        """
        ...

    def predict(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the prediction for each example: (B)."""
        ...


def inputs(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch that the network is called with."""
    return {name: batch[name] for name in NETWORK_INPUTS if name in batch}


def _logits(network: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the logits; a decoder that could keep keys and values for a next token is told not to."""
    options = {"use_cache": False} if _has_cache(type(network).forward) else {}
    logits: Tensor = network(**inputs(batch), **options).logits
    return logits


@cache
def _has_cache(forward: Callable[..., Any]) -> bool:
    return "use_cache" in signature(forward).parameters


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over classes. Labels: (B), logits: (B, C)."""

    metrics: Sequence[str]
    classes: int

    def loss(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(_wide(_logits(network, batch)), batch["labels"])

    def evaluation(self, device: torch.device) -> ClassMetrics:
        """Return empty metrics on a device."""
        return ClassMetrics(self.metrics, self.classes, device)

    def evaluate(self, network: PreTrainedModel, batch: Batch, evaluation: ClassMetrics) -> None:
        """Add a batch to the metrics."""
        logits = _wide(_logits(network, batch))
        evaluation.update(logits, batch["labels"], F.cross_entropy(logits, batch["labels"], reduction="none"))

    def predict(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the class of each example: (B)."""
        return _logits(network, batch).argmax(-1)


@dataclass(frozen=True)
class Regression:
    """Squared error of one output. Labels: (B), logits: (B, 1)."""

    metrics: Sequence[str]

    def loss(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the mean squared error of the batch."""
        values = self.predict(network, batch)
        return F.mse_loss(values, batch["labels"].to(values.dtype))

    def evaluation(self, device: torch.device) -> ValueMetrics:
        """Return empty metrics on a device."""
        return ValueMetrics(self.metrics, device)

    def evaluate(self, network: PreTrainedModel, batch: Batch, evaluation: ValueMetrics) -> None:
        """Add a batch to the metrics."""
        values = self.predict(network, batch)
        labels = batch["labels"].to(values.dtype)
        evaluation.update(values, labels, (values - labels) ** 2)

    def predict(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the value of each example: (B)."""
        return _wide(_logits(network, batch)).squeeze(-1)


@dataclass(frozen=True)
class LanguageModeling:
    """Cross-entropy of the next token at target positions. Labels: (B, T), IGNORE_INDEX elsewhere.

    Logits are computed at positions that predict a target only: with a masked prompt that is a small part of
    B x T x vocabulary.
    """

    def loss(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the mean over the batch's target tokens; a frozen linear head needs no whole logits."""
        head = network.get_output_embeddings()
        if not is_frozen_linear(head, network.config):
            logits, targets = self._targets(network, batch)
            return F.cross_entropy(logits, targets)
        chosen, targets = _chosen(batch)
        selected: list[Tensor] = []

        def keep(hidden: Tensor) -> Tensor:
            selected.append(hidden[chosen])
            return hidden[:, :0]

        with head_inputs_replaced(head, keep):
            network(**inputs(batch), use_cache=False)
        return frozen_head_loss(selected[0], head, targets)

    def evaluation(self, device: torch.device) -> TokenMetrics:
        """Return empty metrics on a device."""
        return TokenMetrics(device)

    def evaluate(self, network: PreTrainedModel, batch: Batch, evaluation: TokenMetrics) -> None:
        """Add a batch to the metrics."""
        logits, targets = self._targets(network, batch)
        evaluation.update(F.cross_entropy(logits, targets, reduction="none").double().sum(), targets.numel())

    def predict(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the loss of each example, summed over its targets: (B)."""
        logits, targets = self._targets(network, batch)
        rows = (batch["labels"][:, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        losses = F.cross_entropy(logits, targets, reduction="none")
        return torch.zeros(len(batch["labels"]), dtype=losses.dtype).index_add(0, rows.cpu(), losses.cpu())

    def _targets(self, network: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (M, vocabulary) and targets (M) of the M target positions."""
        chosen, targets = _chosen(batch)
        with head_inputs_replaced(
            network.get_output_embeddings(), lambda hidden: hidden[chosen].unsqueeze(0)
        ):
            logits = network(**inputs(batch), use_cache=False).logits  # (1, M, vocabulary)
        return _wide(logits.squeeze(0)), targets


class _FrozenHeadLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden W^T + b, a few rows of logits at a time; gradient of hidden only.

    dL/dhidden = (softmax(hidden W^T + b) - onehot(target)) W / M, computed in the forward pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        """hidden: (M, D), weight: (V, D), bias: (V), all of one type; targets: (M) -> scalar."""
        rows = max(1, _LOGITS_AT_ONCE // weight.shape[0])
        total = _wide(hidden.new_zeros(()))
        gradients = []
        for part, wanted in zip(hidden.split(rows), targets.split(rows)):
            logs = F.log_softmax(_wide(F.linear(part, weight, bias)), -1)  # (rows, V)
            total += F.nll_loss(logs, wanted, reduction="sum")
            if ctx.needs_input_grad[0]:
                difference = logs.exp_()  # softmax, then minus the one-hot target
                difference[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                # Not yet divided by M: in float16 the quotient would underflow before it is scaled.
                gradients.append(difference.to(weight.dtype) @ weight)  # (rows, D)
        ctx.save_for_backward(*gradients)
        ctx.count = len(targets)
        return total / len(targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """grad: scalar -> gradient of hidden: (M, D)."""
        total = torch.cat(ctx.saved_tensors)  # M x gradient
        return (total * (grad / ctx.count)).to(total.dtype), None, None, None


def frozen_head_loss(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy under a frozen head, a scalar; under autocast products are in its type.

    Args:
        hidden: (M, D).
        head: from D to the vocabulary.
        targets: (M), token ids.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _FrozenHeadLoss.apply(hidden.to(dtype), head.weight.to(dtype), bias, targets)


def is_frozen_linear(head: nn.Module | None, config: PretrainedConfig) -> TypeGuard[nn.Linear]:
    """Return whether logits are just a frozen linear of the hidden states.

    Args:
        head: the network's output layer.
        config: the network's; some cap their logits.
    """
    if type(head) is not nn.Linear or "forward" in head.__dict__:
        return False
    return not head.weight.requires_grad and not getattr(config, "final_logit_softcapping", None)


def _chosen(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return which positions predict a target (B, T) and the M targets (M)."""
    shifted = batch["labels"][:, 1:]  # position t predicts token t + 1
    wanted = shifted != IGNORE_INDEX
    return F.pad(wanted, (0, 1)), shifted[wanted]  # the last position predicts nothing


@contextmanager
def head_inputs_replaced(output_layer: nn.Module, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give the language-model head selected hidden states only, in the forward passes of the body.

    Args:
        output_layer: the head.
        select: hidden states (B, T, D) -> those the head reads.
    """
    handle = output_layer.register_forward_pre_hook(lambda _, arguments: (select(arguments[0]),))
    try:
        yield
    finally:
        handle.remove()


def _wide(logits: Tensor) -> Tensor:
    """Return logits in at least float32, so that a loss in half precision keeps small differences."""
    return logits if logits.dtype == torch.float64 else logits.float()


def build(objective: str, metrics: Sequence[str], classes: int) -> Objective:
    """Return the objective of a task.

    Args:
        objective: `classification`, `regression` or `language_modeling`.
        metrics: names reported on evaluation sets.
        classes: number of classes; only classification reads it.
    """
    built: dict[str, Callable[[], Objective]] = {
        "classification": lambda: Classification(tuple(metrics), classes),
        "regression": lambda: Regression(tuple(metrics)),
        "language_modeling": LanguageModeling,
    }
    return built[objective]()
