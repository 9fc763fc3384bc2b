"""Language modelling evaluated by multiple-choice accuracy: the answer is the letter of the largest logit.

    answer = argmax over the letters of logits[last position of the prompt, token of the letter]

Source: Hendrycks et al. 2020 (MMLU), arXiv 2009.03300.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.training.metrics import MeanLoss
from model.training.objective import Batch, Objective, head_inputs_replaced, inputs


class MultipleChoiceMetrics:
    """Accuracy over all questions and over those of each group that has any.

    Args:
        names: name of the accuracy over all questions, then those of the groups 0, 1, ...
        device: holds the counts.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.accuracies = {name: MeanLoss(device) for name in names}

    def update(self, right: Tensor, groups: Tensor) -> None:
        """Add a batch. right: (B), bool; groups: (B), integers."""
        for number, accuracy in enumerate(self.accuracies.values(), start=-1):
            members = right if number < 0 else right[groups == number]
            accuracy.update(members.sum(), members.numel())

    def compute(self) -> dict[str, float]:
        """Return every accuracy over all batches and processes, and reset."""
        values = {name: accuracy.compute() for name, accuracy in self.accuracies.items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class MultipleChoice:
    """The loss of language modelling, and accuracies of four-letter questions.

    A batch of questions has labels: (B), the number of the right letter or -1 where none is right; letters:
    (B, 4), their token ids; group: (B).

    Args:
        language_modeling: gives the loss.
        metrics: names of the accuracies, see `MultipleChoiceMetrics`.
    """

    language_modeling: Objective
    metrics: Sequence[str]

    def loss(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the mean over the batch's target tokens."""
        return self.language_modeling.loss(network, batch)

    def evaluation(self, device: torch.device) -> MultipleChoiceMetrics:
        """Return empty metrics on a device."""
        return MultipleChoiceMetrics(self.metrics, device)

    def evaluate(self, network: PreTrainedModel, batch: Batch, evaluation: MultipleChoiceMetrics) -> None:
        """Add a batch of questions to the metrics."""
        evaluation.update(self.predict(network, batch) == batch["labels"], batch["group"])

    def predict(self, network: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the number of the letter with the largest logit after each prompt: (B)."""
        last = batch["attention_mask"].sum(1) - 1  # (B)
        rows = torch.arange(len(last), device=last.device)
        with head_inputs_replaced(
            network.get_output_embeddings(), lambda hidden: hidden[rows, last].unsqueeze(0)
        ):
            logits = network(**inputs(batch), use_cache=False).logits.squeeze(0)  # (B, vocabulary)
        return logits.gather(1, batch["letters"]).argmax(-1)
