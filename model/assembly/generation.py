"""Let a language model with adapters answer one prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from model.assembly.assembly import Assembled
from model.network.snapshot import quiet_transformers


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen.

    Args:
        max_new_tokens: cut-off of an answer.
        beams: hypotheses kept; 1 is greedy.
        sample: draw tokens instead of taking the likeliest.
        temperature: divides the logits that are drawn from.
        top_p: probability mass that is drawn from.
        seed: of the draws.
    """

    max_new_tokens: int
    beams: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


def answer(assembled: Assembled, prompt: Sequence[int], decoding: Decoding, number: int = 0) -> str:
    """Return the text after a prompt; the global random state is left as it was.

    Args:
        assembled: network and adapters.
        prompt: token ids, as many as `require_room` lets pass.
        decoding: how tokens are chosen.
        number: of the prompt; its draws depend on it and the seed alone.
    """
    backbone, network = assembled.backbone, assembled.network.eval()
    tokenizer = backbone.tokenizer
    room = _positions(assembled) - len(prompt) + 1  # the last token is never fed
    choice = {"do_sample": decoding.sample, "num_beams": decoding.beams}
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
    return tokenizer.decode(generated[0, len(prompt) :], skip_special_tokens=True)


def require_room(assembled: Assembled, lengths: Sequence[int]) -> None:
    """Refuse prompts that leave no position for an answer.

    Raises:
        InputFault: a line for each, counted from 1.
    """
    most = _positions(assembled)
    long = [(number, length) for number, length in enumerate(lengths, 1) if length > most]
    if long:
        raise InputFault(
            *(f"prompt {number}: has {length} tokens, the network takes {most}" for number, length in long)
        )


def _positions(assembled: Assembled) -> int:
    return assembled.backbone.family.positions(assembled.network.config)
