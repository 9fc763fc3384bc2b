"""What a step computes from a batch: the loss that trains and the numbers that are reported."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from configs.schema.batch_keys import IGNORE_INDEX, NETWORK_INPUTS
from model.training.metrics import ClassMetrics, TokenMetrics, ValueMetrics

Batch = Mapping[str, Tensor]
"""Key of `configs.schema.batch_keys` -> tensor."""
_LOGITS_AT_ONCE = 2**23


class Evaluation(Protocol):
    """Metrics of one evaluation set while its batches pass."""

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches and processes, and start afresh."""
        ...


class Objective(Protocol):
    """A loss and its metrics. The network is the stock one, called with inputs only, never with labels."""

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the batch's mean loss over its targets, a scalar in float32 or float64."""
        ...

    def evaluation(self, device: torch.device) -> Evaluation:
        """Return fresh metrics."""
        ...

    def evaluate(self, network: nn.Module, batch: Batch, evaluation: Any) -> None:
        """Add a batch to the metrics."""
        ...

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the prediction for each example: (B)."""
        ...


def inputs(batch: Batch) -> dict[str, Tensor]:
    """Return the tensors of a batch that the network is called with."""
    return {name: batch[name] for name in NETWORK_INPUTS if name in batch}


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over classes. Labels (B), logits (B, C)."""

    metrics: Sequence[str]
    classes: int

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(_wide(network(**inputs(batch)).logits), batch["labels"])

    def evaluation(self, device: torch.device) -> ClassMetrics:
        """Return fresh metrics."""
        return ClassMetrics(self.metrics, self.classes, device)

    def evaluate(self, network: nn.Module, batch: Batch, evaluation: ClassMetrics) -> None:
        """Add a batch to the metrics."""
        logits = _wide(network(**inputs(batch)).logits)
        evaluation.update(logits, batch["labels"], F.cross_entropy(logits, batch["labels"], reduction="none"))

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the class of each example: (B)."""
        return network(**inputs(batch)).logits.argmax(-1)


@dataclass(frozen=True)
class Regression:
    """Squared error of one output. Labels (B), logits (B, 1)."""

    metrics: Sequence[str]

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error of the batch."""
        values = self.predict(network, batch)
        return F.mse_loss(values, batch["labels"].to(values.dtype))

    def evaluation(self, device: torch.device) -> ValueMetrics:
        """Return fresh metrics."""
        return ValueMetrics(self.metrics, device)

    def evaluate(self, network: nn.Module, batch: Batch, evaluation: ValueMetrics) -> None:
        """Add a batch to the metrics."""
        values = self.predict(network, batch)
        labels = batch["labels"].to(values.dtype)
        evaluation.update(values, labels, (values - labels) ** 2)

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the value of each example: (B)."""
        return _wide(network(**inputs(batch)).logits).squeeze(-1)


@dataclass(frozen=True)
class LanguageModeling:
    """Cross-entropy of the next token at target positions. Labels (B, T), IGNORE_INDEX on prompt and padding.

    Logits are made for the positions that predict a target and for no other: with a masked prompt that is a
    small part of B x T x vocabulary.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean over the batch's target tokens; under a frozen plain head without whole logits."""
        head = network.get_output_embeddings()
        if not is_frozen_plain(head, network.config):
            logits, targets = self._targets(network, batch)
            return F.cross_entropy(logits, targets)
        chosen, targets = _chosen(batch)
        held: list[Tensor] = []

        def keep(hidden: Tensor) -> Tensor:
            held.append(hidden[chosen])
            return hidden[:, :0]

        with only(head, keep):
            network(**inputs(batch), use_cache=False)
        return frozen_head_loss(held[0], head, targets)

    def evaluation(self, device: torch.device) -> TokenMetrics:
        """Return fresh metrics."""
        return TokenMetrics(device)

    def evaluate(self, network: nn.Module, batch: Batch, evaluation: TokenMetrics) -> None:
        """Add a batch to the metrics."""
        logits, targets = self._targets(network, batch)
        evaluation.update(F.cross_entropy(logits, targets, reduction="none").double().sum(), targets.numel())

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each example, summed over its targets: (B)."""
        logits, targets = self._targets(network, batch)
        rows = (batch["labels"][:, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        losses = F.cross_entropy(logits, targets, reduction="none")
        return torch.zeros(len(batch["labels"]), dtype=losses.dtype).index_add(0, rows.cpu(), losses.cpu())

    def _targets(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (M, vocabulary) and targets (M) of the M target positions."""
        chosen, targets = _chosen(batch)
        with only(network.get_output_embeddings(), lambda hidden: hidden[chosen].unsqueeze(0)):
            logits = network(**inputs(batch), use_cache=False).logits  # (1, M, vocabulary)
        return _wide(logits.squeeze(0)), targets


class _FrozenHeadLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden W^T + b, a few rows of logits at a time; a gradient of hidden alone."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        """hidden: (M, D), weight: (V, D), bias: (V), all of one type; targets: (M) -> scalar."""
        rows = max(1, _LOGITS_AT_ONCE // weight.shape[0])
        total = _wide(hidden.new_zeros(()))
        pulls = []
        for part, wanted in zip(hidden.split(rows), targets.split(rows)):
            logs = F.log_softmax(_wide(F.linear(part, weight, bias)), -1)  # (rows, V)
            total += F.nll_loss(logs, wanted, reduction="sum")
            if ctx.needs_input_grad[0]:
                slope = logs.exp_()
                slope[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                # Not yet divided by M: in float16 the quotient would vanish before a scaler sees it.
                pulls.append(slope.to(weight.dtype) @ weight)  # (rows, D)
        ctx.save_for_backward(*pulls)
        ctx.count = len(targets)
        return total / len(targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """grad: scalar -> gradient of hidden."""
        pull = torch.cat(ctx.saved_tensors)
        return (pull * (grad / ctx.count)).to(pull.dtype), None, None, None


def frozen_head_loss(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy under a frozen head, in the products' type of autocast if it is on.

    Args:
        hidden: (M, D).
        head: from D to the vocabulary.
        targets: (M).
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _FrozenHeadLoss.apply(hidden.to(dtype), head.weight.to(dtype), bias, targets)


def is_frozen_plain(head: nn.Module, config: Any) -> bool:
    """Tell whether logits are nothing but a frozen linear of the hidden states."""
    is_plain = type(head) is nn.Linear and "forward" not in head.__dict__
    return is_plain and not head.weight.requires_grad and not getattr(config, "final_logit_softcapping", None)


def _chosen(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return which positions predict a target (B, T) and the M targets (M)."""
    shifted = batch["labels"][:, 1:]  # position t predicts token t + 1
    wanted = shifted != IGNORE_INDEX
    return F.pad(wanted, (0, 1)), shifted[wanted]  # the last position predicts nothing


@contextmanager
def only(output_layer: nn.Module, select: Callable[[Tensor], Tensor]) -> Any:
    """Let the language-model head see the selected hidden states alone, for one forward pass."""
    handle = output_layer.register_forward_pre_hook(lambda _, arguments: (select(arguments[0]),))
    try:
        yield
    finally:
        handle.remove()


def _wide(logits: Tensor) -> Tensor:
    """Return logits in at least float32, so that a loss keeps its small differences in half precision."""
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
