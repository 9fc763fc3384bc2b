"""Tokenise the examples of a split; `encoded.Encoded` masks the prompt when an example is read.

Language modelling: prompt ids (with the start token that the tokenizer would add, and an end-of-sequence
token where the template asks for it), response ids, end-of-sequence token. Prompt and response are tokenised
separately, so that the border between them is exact. Truncation drops tokens from the end; a prompt that
holds a document is truncated inside the document instead, in training and generation alike, so that the
question and the answer stay complete. Running text is packed into blocks (`encode_blocks`).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.encoding.borders import plain_tokens, response_tokens, without_start
from dataset.encoding.encoded import Encoded
from dataset.encoding.encoded_split import EncodedSplit
from dataset.encoding.multiple_choice import encode_choices
from dataset.task import CHOICES, Example, Task


def encode(
    task: Task, name: str, examples: Sequence[Example], tokenizer: Any, max_token_len: int
) -> EncodedSplit:
    """Encode a split by its task's objective: texts, prompts with responses, blocks, prompts, or questions.

    Args:
        task: the data set, completed by its rows.
        name: the split; `test` of a task with `generation` becomes prompts.
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest example in tokens.

    Raises:
        InputFault: when the tokenizer lacks what the objective needs, or running text leaves no target.
    """
    if task.objective == CHOICES:
        return encode_choices(examples, tokenizer, start_tokens(tokenizer), max_token_len)
    encoded = _encode(task, name, examples, tokenizer, max_token_len)
    if task.packed or not any(example.task_type for example in examples):
        return encoded
    return replace(encoded, task_types=[examples[row].task_type for row in encoded.rows.tolist()])


def _encode(
    task: Task, name: str, examples: Sequence[Example], tokenizer: Any, max_token_len: int
) -> Encoded:
    if task.objective != "language_modeling":
        return encode_texts(examples, tokenizer, max_token_len)
    if task.packed:
        return encode_blocks(examples, tokenizer, max_token_len)
    if task.generation is None:
        return encode_pairs(examples, tokenizer, max_token_len)
    prompt_len = max_token_len - min(task.generation.max_new_tokens, max_token_len // 2)
    make = encode_prompts if name == "test" else encode_pairs
    return make(examples, tokenizer, max_token_len, prompt_len)


def encode_texts(examples: Sequence[Example], tokenizer: Any, max_token_len: int) -> Encoded:
    """Encode classification or regression examples of one or two segments; the longer one is truncated first.

    Args:
        examples: the split's examples; all have a label, or none has.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest example in tokens.
    """
    segments = [list(segment) for segment in zip(*(example.texts for example in examples), strict=True)]
    if segments:
        start = "".join(tokenizer.convert_ids_to_tokens(start_tokens(tokenizer)))
        segments[0] = [text.removeprefix(start) for text in segments[0]]
    encoded = tokenizer(
        *segments,
        truncation=True,
        max_length=max_token_len,
        return_attention_mask=False,
        verbose=False,
    )
    ids = encoded["input_ids"]
    is_labelled = bool(examples) and examples[0].label is not None
    labels = torch.tensor([example.label for example in examples]) if is_labelled else None
    return _encoded(
        ids,
        range(len(ids)),
        purpose="learn" if is_labelled else "predict",
        labels=labels,
        token_type_ids=_flat(encoded["token_type_ids"]) if "token_type_ids" in encoded else None,
        cut=_count_cut(segments, ids, tokenizer, max_token_len),
    )


def encode_pairs(
    examples: Sequence[Example], tokenizer: Any, max_token_len: int, prompt_len: int | None = None
) -> Encoded:
    """Encode prompts and responses; an example without a target after truncation is dropped and counted.

    Args:
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest example in tokens.
        prompt_len: longest prompt that holds a document; None does not truncate documents.
    """
    end = end_token(tokenizer)
    prompts, shortened = _prompts(examples, tokenizer, prompt_len)
    responses = response_tokens([str(example.response) for example in examples], tokenizer, end)
    ids: list[list[int]] = []
    rows: list[int] = []
    cut = 0
    for row, (prompt, response) in enumerate(zip(prompts, responses)):
        whole = [*prompt, *response]
        if len(prompt) >= max_token_len:
            continue
        cut += row in shortened or len(whole) > max_token_len
        ids.append(whole[:max_token_len])
        rows.append(row)
    prompt_lengths = torch.tensor([len(prompts[row]) for row in rows], dtype=torch.int64)
    return _encoded(
        ids, rows, purpose="learn", prompt_lengths=prompt_lengths, cut=cut, dropped=len(prompts) - len(rows)
    )


def encode_prompts(
    examples: Sequence[Example], tokenizer: Any, max_token_len: int, prompt_len: int | None = None
) -> Encoded:
    """Encode prompts for generation; one that is too long keeps its end, where the answer is requested.

    Args:
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest prompt in tokens.
        prompt_len: longest prompt that holds a document; None does not truncate documents.
    """
    start = start_tokens(tokenizer)
    prompts, shortened = _prompts(examples, tokenizer, prompt_len)
    ids, cut = [], 0
    for row, prompt in enumerate(prompts):
        is_long = len(prompt) > max_token_len
        cut += row in shortened or is_long
        ids.append([*start, *prompt[len(prompt) - max_token_len + len(start) :]] if is_long else prompt)
    prompt_lengths = torch.tensor([len(prompt) for prompt in ids], dtype=torch.int64)
    return _encoded(ids, range(len(ids)), purpose="generate", prompt_lengths=prompt_lengths, cut=cut)


def encode_blocks(examples: Sequence[Example], tokenizer: Any, max_token_len: int) -> Encoded:
    """Encode running text: the tokens of all lines are concatenated and cut into blocks.

    Each block begins with the start token. Every token of the text is a target once, except that without a
    start token the first one of a block has no token before it. No end-of-sequence token is added; the last
    block may be shorter.

    Args:
        examples: the lines, in their responses.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: tokens of a block, the start token included.

    Raises:
        InputFault: when the text has no token that could be a target.
    """
    start = start_tokens(tokenizer)
    lines = plain_tokens([str(example.response) for example in examples], tokenizer)
    text = without_start([token for line in lines for token in line], start)
    size, least = max_token_len - len(start), 1 if start else 2
    if len(text) < least or size < 2 * least - 1:
        raise InputFault(f"--max-token-len: {max_token_len}, {len(text)} tokens of text leave no target")
    cuts = [*range(0, len(text), size), len(text)]
    if cuts[-1] - cuts[-2] < least:
        cuts[-2] -= 1  # a single token could not be a target, so the block before gives up its last one
    ids = [[*start, *text[begin:end]] for begin, end in itertools.pairwise(cuts)]
    prompt_lengths = torch.full((len(ids),), len(start), dtype=torch.int64)
    return _encoded(ids, range(len(ids)), purpose="learn", prompt_lengths=prompt_lengths)


def start_tokens(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer adds before a text; empty for one that adds none."""
    probe = tokenizer("a", add_special_tokens=True)["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (at for at in range(len(probe)) if probe[at : at + len(plain)] == plain)
    return probe[: next(starts, 0)]


def end_token(tokenizer: Any) -> int:
    """Return the id of the end-of-sequence token, which ends a response.

    Raises:
        InputFault: when the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise InputFault("--load: the tokenizer has no end-of-sequence token, which language modelling needs")
    return tokenizer.eos_token_id


def _prompts(
    examples: Sequence[Example], tokenizer: Any, prompt_len: int | None
) -> tuple[list[list[int]], set[int]]:
    """Return each prompt's ids, and the numbers of the examples whose document was truncated."""
    start = start_tokens(tokenizer)
    end = [end_token(tokenizer)] if any(example.eos_after_prompt for example in examples) else []
    plain = plain_tokens([example.texts[0] for example in examples], tokenizer)
    # A prompt that was rendered by a chat template brings the start token itself.
    starts = [[] if without_start(ids, start) != ids else start for ids in plain]
    prompts = [
        [*begin, *ids, *(end if example.eos_after_prompt and ids[-1:] != end else ())]
        for example, ids, begin in zip(examples, plain, starts)
    ]
    shortened: set[int] = set()
    for row, (prompt, example) in enumerate(zip(prompts, examples)):
        excess = 0 if prompt_len is None else len(prompt) - prompt_len
        if excess > 0 and example.document_span is not None:
            inside = _document_tokens(example.texts[0], example.document_span, tokenizer)
            if excess < len(inside):  # otherwise nothing of the document would be left
                begin = len(starts[row]) + inside[-excess]
                prompts[row] = [*prompt[:begin], *prompt[begin + excess :]]
                shortened.add(row)
    return prompts, shortened


def _document_tokens(text: str, document: tuple[int, int], tokenizer: Any) -> list[int]:
    """Return the positions of the tokens that lie wholly inside a prompt's document, a contiguous range."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    begin, end = document
    return [
        at for at, (first, last) in enumerate(encoded["offset_mapping"]) if begin <= first and last <= end
    ]


def _count_cut(segments: Sequence[list[str]], ids: list[list[int]], tokenizer: Any, limit: int) -> int:
    # Only an example as long as the limit can have been truncated; these alone are tokenised again, whole.
    full = [row for row, tokens in enumerate(ids) if len(tokens) >= limit]
    if not full:
        return 0
    again = [[segment[row] for row in full] for segment in segments]
    return sum(len(tokens) > limit for tokens in tokenizer(*again, verbose=False)["input_ids"])


def _flat(ids: Iterable[list[int]]) -> Tensor:
    return torch.tensor([token for tokens in ids for token in tokens], dtype=torch.int32)


def _encoded(ids: list[list[int]], rows: Iterable[int], **facts: Any) -> Encoded:
    starts = torch.zeros(len(ids) + 1, dtype=torch.int64)
    starts[1:] = torch.tensor([len(tokens) for tokens in ids], dtype=torch.int64).cumsum(0)
    return Encoded(_flat(ids), starts, torch.tensor(list(rows), dtype=torch.int64), **facts)
