"""A scripted network whose right letters are known, on padded prompts of several lengths."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model.training.multiple_choice import MultipleChoice, MultipleChoiceMetrics
from model.training.objective import LanguageModeling

NAMES = ("mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_social_sciences", "mmlu_other")
LETTERS = [11, 13, 12, 15]


class Scripted(nn.Module):
    """After token t the likeliest token of all is 19, and of the letters the one of number t % 4."""

    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask, use_cache):
        assert not use_cache
        logits = torch.zeros(*input_ids.shape, 20)
        best = torch.tensor(LETTERS)[input_ids % 4]
        logits.scatter_(-1, best.unsqueeze(-1), 1.0)
        logits[..., 19] = 2.0
        return SimpleNamespace(logits=self.head(logits))


def _batch(prompts, labels, groups):
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([prompt + [1] * (width - len(prompt)) for prompt in prompts]),
        "attention_mask": torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in prompts]),
        "labels": torch.tensor(labels),
        "letters": torch.tensor([LETTERS] * len(prompts)),
        "group": torch.tensor(groups),
    }


def test_the_letter_with_the_largest_logit_after_the_prompt_is_the_answer():
    objective, network = MultipleChoice(LanguageModeling(), NAMES), Scripted()
    batch = _batch([[5, 6, 7], [4], [9, 2]], [3, 0, 1], [0, 0, 3])
    assert objective.predict(network, batch).tolist() == [3, 0, 2]
    metrics = objective.evaluation(torch.device("cpu"))
    objective.evaluate(network, batch, metrics)
    objective.evaluate(network, _batch([[4], [8, 8]], [-1, 0], [0, 3]), metrics)  # the first was cut
    found = metrics.compute()
    assert found == {
        "mmlu": pytest.approx(3 / 5),
        "mmlu_stem": pytest.approx(2 / 3),
        "mmlu_other": pytest.approx(1 / 2),
    }
    objective.evaluate(network, _batch([[4]], [0], [1]), metrics)
    assert metrics.compute() == {"mmlu": 1.0, "mmlu_humanities": 1.0}


def test_the_loss_is_that_of_language_modelling():
    learned = LanguageModeling()
    seen = []
    stub = SimpleNamespace(loss=lambda network, batch: seen.append((network, batch)) or torch.tensor(0.5))
    assert float(MultipleChoice(stub, NAMES).loss("network", {"labels": 1})) == 0.5
    assert seen == [("network", {"labels": 1})]
    assert learned == LanguageModeling()


def test_metrics_without_a_question_are_left_out():
    metrics = MultipleChoiceMetrics(NAMES, torch.device("cpu"))
    metrics.update(torch.tensor([True, False]), torch.tensor([2, 2]))
    assert metrics.compute() == {"mmlu": 0.5, "mmlu_social_sciences": 0.5}
