"""Encode multiple-choice questions: prompts that are answered with one of four letters.

A letter's id is the last token of the prompt with the letter appended, and the tokens before it are what the
network reads: nothing is assumed about how a tokenizer joins the letter to the text. A prompt that is too
long is truncated at its end, so that the position of the answer is lost; it counts as answered wrongly.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.encoding.encoded_split import Item, Purpose
from dataset.suites.mmlu import LETTERS, SUBJECTS
from dataset.task import Example

_NO_ANSWER = -1
_AT_ONCE = 512
"""Prompts encoded at once; Python lists of all five-shot prompts, four times each, would take gigabytes."""


class EncodedChoices:
    """Questions as tokens; an `EncodedSplit`.

    Args:
        ids: int32 token ids of each prompt.
        letters: (N, 4) int64, the letters' token ids.
        labels: (N,) int64, number of the right letter; -1 where the prompt was truncated.
        groups: (N,) int64, number of the subject's group.
    """

    purpose: Purpose = "learn"
    dropped = 0
    task_types: Sequence[str] = ()

    def __init__(self, ids: Sequence[Tensor], letters: Tensor, labels: Tensor, groups: Tensor) -> None:
        self.ids = list(ids)
        self.letters = letters
        self.labels = labels
        self.groups = groups

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        return {
            "input_ids": self.ids[index].long(),
            "labels": self.labels[index],
            "letters": self.letters[index],
            "group": self.groups[index],
        }

    @property
    def cut(self) -> int:
        """Number of prompts that were truncated."""
        return int((self.labels == _NO_ANSWER).sum())

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt."""
        return [len(tokens) for tokens in self.ids]

    def draw(self, seed: int) -> None:
        """Return None: an epoch holds each question once."""

    def stored_order(self) -> Sequence[int]:
        """Return the questions in the order of their files."""
        return range(len(self))


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
        InputFault: when the letters do not differ in exactly their last token.
    """
    parts = (examples[begin : begin + _AT_ONCE] for begin in range(0, len(examples), _AT_ONCE))
    encoded = (pair for part in parts for pair in _with_letters(part, tokenizer))
    ids, letters, labels, groups = [], [], [], []
    for example, (front, four) in zip(examples, encoded):
        prompt = [*start, *front]
        answer, group = _answer(example)
        ids.append(torch.tensor(prompt[:max_token_len], dtype=torch.int32))
        letters.append(four)
        labels.append(answer if len(prompt) <= max_token_len else _NO_ANSWER)
        groups.append(group)
    return EncodedChoices(ids, torch.tensor(letters), torch.tensor(labels), torch.tensor(groups))


def _answer(example: Example) -> tuple[int, int]:
    """Return the number of the right letter and that of the subject's group."""
    assert example.label is not None and example.gold is not None  # every question of MMLU has both
    return int(example.label), list(SUBJECTS).index(example.gold)


def _with_letters(examples: Sequence[Example], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Yield for each prompt the ids in front of the letter, and the four letters' own ids."""
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    by_letter = [
        tokenizer([f"{example.texts[0]} {letter}" for example in examples], **options)["input_ids"]
        for letter in LETTERS
    ]
    for whole in zip(*by_letter):
        front, letters = whole[0][:-1], [tokens[-1] for tokens in whole]
        if any(tokens[:-1] != front for tokens in whole) or len(set(letters)) < len(letters):
            raise InputFault(
                "--mmlu-mode: the tokenizer does not encode the letters A to D as one token each"
            )
        yield front, letters
