"""The learner that evaluates a network by the answers it generates."""

from collections.abc import Callable, Mapping, Sequence

import lightning as L
import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase

from model.training.objective import Batch

Score = Callable[[str, str], dict[str, float]]


class GenerationEvaluator(L.LightningModule):
    """Decode greedily for every prompt of a test set and score the generated text.

    Args:
        network: the network with its adapters attached.
        adapters: the modules that hold the adapters' tensors, so that they move to the device with it.
        tokenizer: decodes answers; has the ids of the pad and end tokens.
        max_new_tokens: most tokens of an answer.
        score: (answer, gold) -> {metric: 0.0 to 1.0}.
        golds: gold text by row number.

    Attributes:
        answers: row number -> generated text, of all processes at the end.
        results: mean scores by name, e.g. `test/exact_match`.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        adapters: nn.ModuleDict,
        *,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        score: Score,
        golds: Sequence[str],
    ) -> None:
        super().__init__()
        self.network = network
        self.adapters = adapters
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.score = score
        self.golds = golds
        self.answers: dict[int, str] = {}
        self.results: dict[str, float] = {}

    def on_test_epoch_start(self) -> None:
        """Drop the answers of an earlier test."""
        self.answers = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Generate for a batch of left-padded prompts. input_ids: (B, T)."""
        network, length = self.network, batch["input_ids"].shape[1]
        assert isinstance(network, GenerationMixin), "a task with generated answers has a language model"
        generated = network.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            synced_gpus=False,  # `synchronised_forwards` does it for sharded networks
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        texts: list[str] = self.tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True)
        self.answers |= dict(zip(batch["index"].tolist(), texts))

    def on_test_epoch_end(self) -> None:
        """Gather the answers of all processes, each row once, and log the mean of every score."""
        if self.trainer.world_size > 1:
            gathered: list[dict[int, str]] = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self.answers)
            self.answers = {row: text for part in gathered for row, text in part.items()}
        self.answers = dict(sorted(self.answers.items()))
        scores = [self.score(text, self.golds[row]) for row, text in self.answers.items()]
        self.results = {f"test/{name}": _mean(scores, name) for name in scores[0]}
        for name, value in self.results.items():
            self.log(name, torch.tensor(value, dtype=torch.float64), rank_zero_only=False, sync_dist=False)


def _mean(scores: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(score[name] for score in scores) / len(scores)
