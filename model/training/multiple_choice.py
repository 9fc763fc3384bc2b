"""Learn language and be evaluated by letters: the answer is the letter with the largest logit.

Source: Hendrycks et al. 2020, 2009.03300; the position is the last one of the prompt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.training.metrics import MeanLoss
from model.training.objective import Batch, LanguageModeling, inputs, only


class ChoiceMetrics:
    """Accuracy over all questions and over those of each group that has any.

    Args:
        names: that of all questions, then those of the groups.
        device: where the counts are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.shares = {name: MeanLoss(device) for name in names}

    def update(self, right: Tensor, groups: Tensor) -> None:
        """Add a batch. right: (B), bool; groups: (B)."""
        for number, share in enumerate(self.shares.values(), start=-1):
            members = right if number < 0 else right[groups == number]
            share.update(members.sum(), members.numel())

    def compute(self) -> dict[str, float]:
        """Return every accuracy over all batches and processes, and start afresh."""
        shares = {name: share.compute() for name, share in self.shares.items()}
        return {name: share for name, share in shares.items() if not math.isnan(share)}


@dataclass(frozen=True)
class Choice:
    """The loss of language modelling, and accuracies of four-letter questions.

    A question has labels (B), the number of the right letter, -1 where none is right; letters (B, 4), their
    token ids; group (B).
    """

    learned: LanguageModeling
    metrics: Sequence[str]

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean over the batch's target tokens."""
        return self.learned.loss(network, batch)

    def evaluation(self, device: torch.device) -> ChoiceMetrics:
        """Return fresh metrics."""
        return ChoiceMetrics(self.metrics, device)

    def evaluate(self, network: nn.Module, batch: Batch, evaluation: ChoiceMetrics) -> None:
        """Add a batch of questions to the metrics."""
        evaluation.update(self.predict(network, batch) == batch["labels"], batch["group"])

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the number of the letter with the largest logit after each prompt: (B)."""
        last = batch["attention_mask"].sum(1) - 1  # (B)
        rows = torch.arange(len(last), device=last.device)
        with only(network.get_output_embeddings(), lambda hidden: hidden[rows, last].unsqueeze(0)):
            logits = network(**inputs(batch), use_cache=False).logits.squeeze(0)  # (B, vocabulary)
        return logits.gather(1, batch["letters"]).argmax(-1)
