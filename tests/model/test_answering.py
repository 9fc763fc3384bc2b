"""An answer is what the network's own greedy choice gives, token by token."""

import pytest
import torch

from configs.faults import InputFault
from model.answering import Decoding, answer
from model.assembly import assemble
from model.backbone import load_backbone
from model.plan import read_plan
from model.source import resolve

PROMPT = [0, 40, 41, 42]


@pytest.fixture(scope="module")
def assembled(ground):
    backbone = load_backbone(resolve(str(ground.host("llama")), "--load"), "language_modeling")
    plan = read_plan(ground.plan("answer-start", init_lora_weights=False))
    return assemble(backbone, plan, None, 0)


def test_a_greedy_answer_takes_the_likeliest_token(assembled):
    ids = list(PROMPT)
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(assembled.network(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == assembled.backbone.tokenizer.eos_token_id:
                break
    expected = assembled.backbone.tokenizer.decode(ids[len(PROMPT) :], skip_special_tokens=True)
    assert answer(assembled, PROMPT, Decoding(6)) == expected


def test_draws_depend_on_seed_and_prompt_alone(assembled):
    def drawn(seed, number):
        return answer(assembled, PROMPT, Decoding(12, sample=True, temperature=5.0, seed=seed), number)

    before = torch.random.get_rng_state()
    first = drawn(1, 0)
    assert first == drawn(1, 0)
    assert len({first, drawn(2, 0), drawn(1, 1)}) == 3
    assert before.equal(torch.random.get_rng_state())


def test_beams_are_no_less_likely_than_the_greedy_answer(assembled):
    assert isinstance(answer(assembled, PROMPT, Decoding(5, beams=3)), str)


def test_a_prompt_that_fills_the_network_is_refused(assembled):
    positions = assembled.backbone.family.positions(assembled.network.config)
    answer(assembled, [40] * positions, Decoding(5))
    with pytest.raises(
        InputFault, match=f"prompt 1: has {positions + 1} tokens, the network takes {positions}"
    ):
        answer(assembled, [40] * (positions + 1), Decoding(5))
