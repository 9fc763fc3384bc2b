"""Matrices that a seed gives: what is drawn, when it is drawn again, what its checksum is."""

import hashlib

import torch

from model.adapters.drawn_matrices import DrawnMatrices
from model.adapters.initialisation import kaiming_uniform_
from model.tensors.random_state import generator


def _drawn(purpose, seed):
    expected = torch.zeros(3, 5)
    kaiming_uniform_(expected, 5, generator(seed, purpose), a_squared=0)
    return expected


def test_a_matrix_is_its_purposes_draw_from_the_seed():
    matrices, one, two = DrawnMatrices(), torch.zeros(3, 5), torch.zeros(3, 5)
    matrices.fill("one", one, 5, 1)
    matrices.fill("two", two, 5, 1)
    assert torch.equal(one, _drawn("one", 1))
    assert torch.equal(two, _drawn("two", 1))
    matrices.fill("one", one, 5, 2)
    assert torch.equal(one, _drawn("one", 2))
    assert torch.equal(two, _drawn("two", 1))


def test_another_tensor_of_the_same_purpose_is_filled_too():
    matrices, one, two = DrawnMatrices(), torch.zeros(3, 5), torch.zeros(3, 5)
    matrices.fill("one", one, 5, 1)
    matrices.fill("one", two, 5, 1)
    assert torch.equal(one, two)


def test_the_checksum_is_that_of_the_float32_numbers_one_after_the_other_and_follows_a_new_draw():
    matrices, one, two = DrawnMatrices(), torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, 5)
    found = []
    for seed in (1, 2, 1):
        matrices.fill("one", one, 5, seed)
        matrices.fill("two", two, 5, 1)
        text = _drawn("one", seed).numpy().tobytes() + _drawn("two", 1).numpy().tobytes()
        found.append(matrices.checksum("one", "two"))
        assert found[-1] == int.from_bytes(hashlib.sha256(text).digest()[:7], "big")
    assert found[0] == found[2] != found[1]


def test_the_meta_device_has_no_numbers_to_hash():
    matrices = DrawnMatrices()
    with torch.device("meta"):
        matrices.fill("one", torch.zeros(3, 5), 5, 1)
        matrices.fill("two", torch.zeros(3, 5), 5, 1)
        assert matrices.checksum("one", "two") == 0
