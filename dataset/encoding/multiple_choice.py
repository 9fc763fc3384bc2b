"""Encode prompts after which one of four letters is asked for.

A letter's id is the last one of the prompt with the letter appended, and what stands before it is what the
network reads: nothing is assumed about how a tokenizer joins the letter to the text. A prompt that does not
fit is cut at its end, so that the place of the answer is lost; it counts as wrong.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.suites.mmlu import LETTERS, SUBJECTS
from dataset.task import Example

_NO_ANSWER = -1
_AT_ONCE = 512
"""Prompts whose four encodings are held as lists of Python numbers; five shots of all would be gigabytes."""


class EncodedChoices:
    """Prompts as tokens; serves evaluation as `dataset.encoding.encode.Encoded` does.

    Args:
        ids: int32 token ids of each prompt.
        letters: (N, 4), the letters' ids.
        labels: (N,), number of the right letter; -1 where the prompt was cut.
        groups: (N,), number of the subject's group.
    """

    purpose = "learn"
    borders = None
    dropped = 0
    types = ()

    def __init__(self, ids: Sequence[Tensor], letters: Tensor, labels: Tensor, groups: Tensor) -> None:
        self.ids = list(ids)
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
    parts = (examples[begin : begin + _AT_ONCE] for begin in range(0, len(examples), _AT_ONCE))
    ended = (pair for part in parts for pair in _ended(part, tokenizer))
    ids, letters, labels = [], [], []
    for example, (front, four) in zip(examples, ended):
        prompt = [*start, *front]
        ids.append(torch.tensor(prompt[:max_token_len], dtype=torch.int32))
        letters.append(four)
        labels.append(int(example.label) if len(prompt) <= max_token_len else _NO_ANSWER)
    groups = [list(SUBJECTS).index(example.gold) for example in examples]
    return EncodedChoices(ids, torch.tensor(letters), torch.tensor(labels), torch.tensor(groups))


def _ended(examples: Sequence[Example], tokenizer: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the ids in front of the letter, and the four letters' own, of each prompt."""
    manner = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    by_letter = [
        tokenizer([f"{example.texts[0]} {letter}" for example in examples], **manner)["input_ids"]
        for letter in LETTERS
    ]
    for whole in zip(*by_letter):
        front, letters = whole[0][:-1], [tokens[-1] for tokens in whole]
        if any(tokens[:-1] != front for tokens in whole) or len(set(letters)) < len(letters):
            raise InputFault("--mmlu-mode: the tokenizer does not write the letters A to D as one token each")
        yield front, letters
