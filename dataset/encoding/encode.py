"""Tokenise a split in batched calls and know which tokens are learned.

Language modelling: prompt ids (with the start token the tokenizer would add, and an end token where the
example is closed), then response ids, then the end token; prompt and response are tokenised apart, so that
the border is exact. Cutting drops from the end, but a prompt that holds a document is cut inside it, alike
for learning and for generation: what is asked and the answer stay whole. Running text is packed into blocks
(`encode_blocks`).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from configs.runtime.faults import InputFault
from dataset.encoding.multiple_choice import EncodedChoices, encode_choices
from dataset.task import CHOICES, Example, Task

IGNORED = -100
Purpose = Literal["learn", "predict", "generate"]


@dataclass(frozen=True)
class Encoded:
    """One split as tokens; item i is a dictionary of tensors for `dataset.encoding.collate`.

    Args:
        tokens: (total,) int32, all examples one after the other.
        starts: (N + 1,) int64, where each example begins.
        rows: (N,) int64, the example's number in its split.
        purpose: learn (with labels), predict (no labels), generate (prompts alone).
        borders: (N,) int64, the length of the prompt; None for classification.
        labels: (N,) int64 or float32; None for language modelling and predictions.
        segments: (total,) int32 token type ids, when the tokenizer makes them.
        cut: examples that were shortened.
        dropped: examples left out because cutting left no target.
        types: (N,) what sort of task each example is, where the split tells; no batch holds it.
    """

    tokens: Tensor
    starts: Tensor
    rows: Tensor
    purpose: Purpose
    borders: Tensor | None = None
    labels: Tensor | None = None
    segments: Tensor | None = None
    cut: int = 0
    dropped: int = 0
    types: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        begin, end = int(self.starts[index]), int(self.starts[index + 1])
        item = {"input_ids": self.tokens[begin:end].long()}
        if self.segments is not None:
            item["token_type_ids"] = self.segments[begin:end].long()
        if self.labels is not None:
            item["labels"] = self.labels[index]
        elif self.purpose == "learn" and self.borders is not None:
            item["labels"] = item["input_ids"].clone()
            item["labels"][: int(self.borders[index])] = IGNORED
        if self.purpose != "learn":
            item["index"] = self.rows[index]
        return item

    @property
    def lengths(self) -> list[int]:
        """Token counts of the examples."""
        return (self.starts[1:] - self.starts[:-1]).tolist()

    def draw(self, seed: int) -> None:
        """Return how an epoch chooses its examples: None, it holds each of them once."""

    def stored_order(self) -> Sequence[int]:
        """Return the examples in the order importance tests read them."""
        return range(len(self))


def encode(
    task: Task, name: str, examples: Sequence[Example], tokenizer: Any, max_token_len: int
) -> Encoded | EncodedChoices:
    """Encode a split as its task and its place ask for: labelled texts, bare texts, pairs, or prompts.

    Args:
        task: the data set, completed by its rows.
        name: the split; `test` of a task with `generation` becomes prompts.
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest example in tokens.
    """
    if task.objective == CHOICES:
        return encode_choices(examples, tokenizer, start_tokens(tokenizer), max_token_len)
    encoded = _encode(task, name, examples, tokenizer, max_token_len)
    if task.packed or not any(example.task_type for example in examples):
        return encoded
    return replace(encoded, types=[examples[row].task_type for row in encoded.rows.tolist()])


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
    """Encode classification or regression examples of one or two segments, the longest cut first."""
    segments = list(zip(*(example.texts for example in examples), strict=True))
    encoded = tokenizer(
        *[list(segment) for segment in segments],
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
        segments=_flat(encoded["token_type_ids"]) if "token_type_ids" in encoded else None,
        cut=_count_cut(examples, ids, tokenizer, max_token_len),
    )


def encode_pairs(
    examples: Sequence[Example], tokenizer: Any, max_token_len: int, prompt_len: int | None = None
) -> Encoded:
    """Encode prompts and responses; an example that keeps no target after cutting is dropped and counted.

    Args:
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest example in tokens.
        prompt_len: longest prompt that holds a document; None does not cut documents.
    """
    end = end_token(tokenizer)
    prompts, shortened = _prompts(examples, tokenizer, prompt_len)
    responses = _plain([str(example.response) for example in examples], tokenizer)
    ids: list[list[int]] = []
    rows: list[int] = []
    cut = 0
    for row, (prompt, response) in enumerate(zip(prompts, responses)):
        whole = [*prompt, *response, end]
        if len(prompt) >= max_token_len:
            continue
        cut += row in shortened or len(whole) > max_token_len
        ids.append(whole[:max_token_len])
        rows.append(row)
    borders = torch.tensor([len(prompts[row]) for row in rows], dtype=torch.int64)
    return _encoded(ids, rows, purpose="learn", borders=borders, cut=cut, dropped=len(prompts) - len(rows))


def encode_prompts(
    examples: Sequence[Example], tokenizer: Any, max_token_len: int, prompt_len: int | None = None
) -> Encoded:
    """Encode prompts for generation; a long one keeps its end, where the answer is asked for.

    Args:
        examples: the split's examples.
        tokenizer: a fast tokenizer of transformers.
        max_token_len: longest prompt in tokens.
        prompt_len: longest prompt that holds a document; None does not cut documents.
    """
    start = start_tokens(tokenizer)
    prompts, shortened = _prompts(examples, tokenizer, prompt_len)
    ids, cut = [], 0
    for row, prompt in enumerate(prompts):
        is_long = len(prompt) > max_token_len
        cut += row in shortened or is_long
        ids.append([*start, *prompt[len(prompt) - max_token_len + len(start) :]] if is_long else prompt)
    borders = torch.tensor([len(prompt) for prompt in ids], dtype=torch.int64)
    return _encoded(ids, range(len(ids)), purpose="generate", borders=borders, cut=cut)


def encode_blocks(examples: Sequence[Example], tokenizer: Any, max_token_len: int) -> Encoded:
    """Encode running text: all lines' tokens in one row, cut into blocks that begin with the start token.

    Every text token is a target once; without a start token a block's first one has nothing before it and is
    none. No end token is added, and the last block is as long as what is left.

    Raises:
        InputFault: when the text has no token that could be a target.
    """
    start = start_tokens(tokenizer)
    lines = _plain([str(example.response) for example in examples], tokenizer)
    text = [token for line in lines for token in line]
    size, least = max_token_len - len(start), 1 if start else 2
    if len(text) < least or size < 2 * least - 1:
        raise InputFault(f"--max-token-len: {max_token_len}, {len(text)} tokens of text leave no target")
    cuts = [*range(0, len(text), size), len(text)]
    if cuts[-1] - cuts[-2] < least:
        cuts[-2] -= 1  # one token alone has nothing before it, so the block in front lends one
    ids = [[*start, *text[begin:end]] for begin, end in itertools.pairwise(cuts)]
    borders = torch.full((len(ids),), len(start), dtype=torch.int64)
    return _encoded(ids, range(len(ids)), purpose="learn", borders=borders)


def start_tokens(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer normally puts before a text."""
    probe = tokenizer("a", add_special_tokens=True)["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (at for at in range(len(probe)) if probe[at : at + len(plain)] == plain)
    return probe[: next(starts, 0)]


def end_token(tokenizer: Any) -> int:
    """Return the id that ends a response.

    Raises:
        InputFault: when the tokenizer has none.
    """
    if tokenizer.eos_token_id is None:
        raise InputFault("--load: the tokenizer has no end-of-sequence token, which language modelling needs")
    return tokenizer.eos_token_id


def _prompts(
    examples: Sequence[Example], tokenizer: Any, prompt_len: int | None
) -> tuple[list[list[int]], set[int]]:
    """Return every prompt's ids, and the examples whose document was cut."""
    start = start_tokens(tokenizer)
    end = [end_token(tokenizer)] if any(example.closed for example in examples) else []
    plain = _plain([example.texts[0] for example in examples], tokenizer)
    prompts = [[*start, *ids, *(end if example.closed else ())] for example, ids in zip(examples, plain)]
    shortened = set()
    for row, (prompt, example) in enumerate(zip(prompts, examples)):
        excess = 0 if prompt_len is None else len(prompt) - prompt_len
        if excess > 0 and example.document is not None:
            inside = _inside(example.texts[0], example.document, tokenizer)
            if excess < len(inside):  # else nothing of the document would be left
                begin = len(start) + inside[-excess]
                prompts[row] = [*prompt[:begin], *prompt[begin + excess :]]
                shortened.add(row)
    return prompts, shortened


def _inside(text: str, document: tuple[int, int], tokenizer: Any) -> list[int]:
    """Return which tokens of a prompt stand for nothing but its document: a run of neighbours."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    begin, end = document
    return [
        at for at, (first, last) in enumerate(encoded["offset_mapping"]) if begin <= first and last <= end
    ]


def _plain(texts: list[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _count_cut(examples: Sequence[Example], ids: list[list[int]], tokenizer: Any, limit: int) -> int:
    # Only an example that fills the limit can have been cut; those alone are tokenised once more, whole.
    full = [examples[row] for row, tokens in enumerate(ids) if len(tokens) >= limit]
    if not full:
        return 0
    segments = [list(segment) for segment in zip(*(example.texts for example in full), strict=True)]
    return sum(len(tokens) > limit for tokens in tokenizer(*segments, verbose=False)["input_ids"])


def _flat(ids: Iterable[list[int]]) -> Tensor:
    return torch.tensor([token for tokens in ids for token in tokens], dtype=torch.int32)


def _encoded(ids: list[list[int]], rows: Iterable[int], **facts: Any) -> Encoded:
    starts = torch.zeros(len(ids) + 1, dtype=torch.int64)
    starts[1:] = torch.tensor([len(tokens) for tokens in ids], dtype=torch.int64).cumsum(0)
    return Encoded(_flat(ids), starts, torch.tensor(list(rows), dtype=torch.int64), **facts)
