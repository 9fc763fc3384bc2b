"""Tokens of a text as it stands inside a sequence: without what a tokenizer adds to the begin of every text.

Tokenizers made by SentencePiece put a space before a text. Before a response that begins with a space or a
line end of its own it becomes a token by itself, which no prompt in front of it would have.
"""

from collections.abc import Sequence
from typing import Any

_SPACES = ("\u2581", "\u0120")
"""A space at the begin of a token: of SentencePiece, and of byte-level tokenizers."""


def plain_tokens(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Return the ids of each text, without special tokens."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def response_tokens(texts: list[str], tokenizer: Any, end: int) -> list[list[int]]:
    """Return the ids of each response, the end-of-sequence token last.

    Args:
        texts: the responses; one that was rendered by a chat template may bring the end token itself.
        tokenizer: a fast tokenizer of transformers.
        end: id of its end-of-sequence token.
    """
    before = plain_tokens(["a"], tokenizer)[0]
    adds_space = str(tokenizer.convert_ids_to_tokens(before[0])).startswith(_SPACES)
    found = []
    for text, ids in zip(texts, plain_tokens(texts, tokenizer)):
        inside = _without_added_space(text, ids, before, tokenizer) if adds_space else ids
        found.append(inside if inside[-1:] == [end] else [*inside, end])
    return found


def without_start(ids: list[int], start: Sequence[int]) -> list[int]:
    """Return a text's ids without the start token, which a rendered chat template brings itself."""
    return ids[len(start) :] if start and ids[: len(start)] == list(start) else ids


def _without_added_space(text: str, ids: list[int], before: list[int], tokenizer: Any) -> list[int]:
    """Return the ids of a text that has as many spaces at its begin as it is written with.

    Where there are none, a space inside of the first token of a word is left: it is how such a tokenizer
    writes a word.
    """

    def spaces(tokens: list[int]) -> int:
        whole = tokenizer.decode([*before, *tokens], clean_up_tokenization_spaces=False)
        return _leading_spaces(whole[len(tokenizer.decode(before, clean_up_tokenization_spaces=False)) :])

    written = _leading_spaces(text)
    if len(ids) < 2 or spaces(ids) == written:
        return ids
    if tokenizer.convert_ids_to_tokens(ids[0]) in _SPACES and spaces(ids[1:]) == written:
        return ids[1:]
    again = plain_tokens([text[1:]], tokenizer)[0] if written else ids
    return again if spaces(again) == written else ids


def _leading_spaces(text: str) -> int:
    return len(text) - len(text.lstrip(" "))
