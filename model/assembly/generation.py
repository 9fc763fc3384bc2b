"""Generate text with a language model and its adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationMixin

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from model.assembly.assembly import Assembled
from model.network.snapshot import quiet_transformers


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen.

    Args:
        max_new_tokens: tokens that are generated at most.
        beams: hypotheses of beam search; 1 is greedy search.
        sample: draw tokens instead of taking the most likely one.
        temperature: divides the logits before sampling.
        top_p: probability mass of nucleus sampling.
        seed: of sampling.
    """

    max_new_tokens: int
    beams: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


def generate(assembled: Assembled, prompt: Sequence[int], decoding: Decoding, number: int = 0) -> str:
    """Return the text that continues a prompt; the global random state is left as it was.

    Args:
        assembled: a language model with its tokenizer, and adapters.
        prompt: token ids, not more than `check_prompt_lengths` allows.
        decoding: how tokens are chosen.
        number: of the prompt; sampling depends on it and the seed alone.
    """
    network, tokenizer = assembled.network.eval(), assembled.tokenizer
    assert isinstance(network, GenerationMixin)  # its class is chosen by the objective
    room = _positions(assembled) - len(prompt) + 1  # the last token is never fed
    choice: dict[str, Any] = {"do_sample": decoding.sample, "num_beams": decoding.beams}
    if decoding.sample:
        choice |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    ids = torch.tensor([list(prompt)])
    with quiet_transformers(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(decoding.seed, "generate", number))
        generated = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(decoding.max_new_tokens, room),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **choice,
        )
    return str(tokenizer.decode(generated[0, len(prompt) :], skip_special_tokens=True))


def check_prompt_lengths(assembled: Assembled, lengths: Sequence[int]) -> None:
    """Refuse prompts with more tokens than the network has positions.

    Raises:
        InputFault: a line for each such prompt, counted from 1.
    """
    most = _positions(assembled)
    long = [(number, length) for number, length in enumerate(lengths, 1) if length > most]
    if long:
        raise InputFault(
            *(f"prompt {number}: has {length} tokens, the network takes {most}" for number, length in long)
        )


def _positions(assembled: Assembled) -> int:
    return assembled.backbone.family.positions(assembled.network.config)
