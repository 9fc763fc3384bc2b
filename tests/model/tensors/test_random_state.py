"""Generators belong to a purpose and leave the global one alone."""

import torch

from configs.runtime.seeds import derive
from model.tensors.random_state import generator


def test_a_purpose_has_its_own_stream_and_the_global_one_stays():
    state = torch.get_rng_state()
    draws = [
        torch.rand(3, generator=generator(*purpose))
        for purpose in [(0, "a"), (0, "b"), (1, "a"), (0, "a", 1)]
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(draw.tolist()) for draw in draws}) == 4
    assert torch.equal(draws[0], torch.rand(3, generator=generator(0, "a")))
    assert generator(0, "a").initial_seed() == derive(0, "a")
