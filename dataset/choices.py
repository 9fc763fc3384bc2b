"""Encode prompts after which one of four letters is asked for.

A letter's id is the last one of the prompt with the letter appended, and what stands before it is what the
network reads: nothing is assumed about how a tokenizer joins the letter to the text. A prompt that does not
fit is cut at its end, so that the place of the answer is lost; it counts as wrong.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from configs.faults import InputFault
from dataset.mmlu import LETTERS, SUBJECTS
from dataset.task import Example

_NO_ANSWER = -1


class EncodedChoices:
    """Prompts as tokens; serves evaluation as `dataset.encoding.Encoded` does.

    Args:
        ids: token ids of each prompt.
        letters: (N, 4), the letters' ids.
        labels: (N,), number of the right letter; -1 where the prompt was cut.
        groups: (N,), number of the subject's group.
    """

    purpose = "learn"
    borders = None
    dropped = 0

    def __init__(self, ids: Sequence[Sequence[int]], letters: Tensor, labels: Tensor, groups: Tensor) -> None:
        self.ids = [torch.tensor(tokens, dtype=torch.int32) for tokens in ids]
        self.letters = letters
        self.labels = labels
        self.groups = groups

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "input_ids": self.ids[index].long(),
            "labels": self.labels[index],
            "letters": self.letters[index],
            "group": self.groups[index],
        }

    @property
    def cut(self) -> int:
        """Prompts that were cut."""
        return int((self.labels == _NO_ANSWER).sum())

    @property
    def lengths(self) -> list[int]:
        """Token counts of the prompts."""
        return [len(tokens) for tokens in self.ids]


def encode_choices(
    examples: Sequence[Example], tokenizer: Any, start: Sequence[int], max_token_len: int
) -> EncodedChoices:
    """Encode questions of MMLU.

    Args:
        examples: prompt, number of the right letter, and in `gold` the group.
        tokenizer: a fast tokenizer of transformers.
        start: ids that the tokenizer puts before a text.
        max_token_len: longest prompt in tokens.

    Raises:
        InputFault: when the tokenizer does not tell the letters apart by their last token alone.
    """
    ended = []
    for letter in LETTERS:
        texts = [f"{example.texts[0]} {letter}" for example in examples]
        ended.append(tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False))
    whole = [one["input_ids"] for one in ended]
    prompts = [[*start, *tokens[:-1]] for tokens in whole[0]]
    for others in whole[1:]:
        if any(a[:-1] != b[:-1] or a[-1] == b[-1] for a, b in zip(whole[0], others)):
            raise InputFault("--mmlu-mode: the tokenizer does not write the letters A to D as one token each")
    fits = [len(tokens) <= max_token_len for tokens in prompts]
    labels = [int(one.label) if fit else _NO_ANSWER for one, fit in zip(examples, fits)]
    groups = [list(SUBJECTS).index(one.gold) for one in examples]
    letters = torch.tensor([[one[row][-1] for one in whole] for row in range(len(examples))])
    cut = [tokens[:max_token_len] for tokens in prompts]
    return EncodedChoices(cut, letters, torch.tensor(labels), torch.tensor(groups))
