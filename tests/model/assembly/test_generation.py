"""Greedy generation takes the most likely token each time; sampling depends on seed and prompt alone."""

import pytest
import torch

from configs.runtime.faults import InputFault
from model.assembly.assembly import assemble
from model.assembly.generation import Decoding, check_prompt_lengths, generate
from model.assembly.placement import Plans
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan

PROMPT = [0, 40, 41, 42]


@pytest.fixture(scope="module")
def assembled(ground):
    backbone = load_backbone(resolve(str(ground.host("llama")), "--load"), "language_modeling")
    plan = read_plan(ground.plan("answer-start", init_lora_weights=False))
    return assemble(backbone, Plans(plan), None, 0)


def test_a_greedy_answer_takes_the_likeliest_token(assembled):
    ids = list(PROMPT)
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(assembled.network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == assembled.backbone.tokenizer.eos_token_id:
                break
    expected = assembled.backbone.tokenizer.decode(ids[len(PROMPT) :], skip_special_tokens=True)
    assert generate(assembled, PROMPT, Decoding(6)) == expected


def test_draws_depend_on_seed_and_prompt_alone(assembled):
    def drawn(seed, number):
        return generate(assembled, PROMPT, Decoding(12, sample=True, temperature=5.0, seed=seed), number)

    before = torch.random.get_rng_state()
    first = drawn(1, 0)
    assert first == drawn(1, 0)
    assert len({first, drawn(2, 0), drawn(1, 1)}) == 3
    assert before.equal(torch.random.get_rng_state())


def test_beams_search_more_than_the_greedy_answer(assembled):
    def likelihood(ids):
        with torch.no_grad():
            logits = assembled.network(torch.tensor([ids])).logits[0, len(PROMPT) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids[len(PROMPT) :])[:, None]).sum()

    seen = []
    stock = assembled.network.generate
    assembled.network.generate = lambda **how: seen.append(stock(**how)) or seen[-1]
    try:
        for beams in (1, 300):  # the whole vocabulary: two tokens are then searched in full
            generate(assembled, PROMPT, Decoding(2, beams=beams))
    finally:
        del assembled.network.generate
    greedy, searched = (likelihood(ids[0].tolist()) for ids in seen)
    assert searched >= greedy - 1e-6


def test_a_prompt_that_fills_the_network_is_answered_and_a_longer_one_refused(assembled):
    most = assembled.backbone.family.positions(assembled.network.config)
    generate(assembled, [40] * most, Decoding(5))
    check_prompt_lengths(assembled, [4, most])
    with pytest.raises(InputFault) as refused:
        check_prompt_lengths(assembled, [most + 1, 4, most + 2])
    assert refused.value.lines == tuple(
        f"prompt {number}: has {most + more} tokens, the network takes {most}"
        for number, more in ((1, 1), (3, 2))
    )
