"""The weights of a layer's sets: the formula in plain tensors, the starts, and what is kept of a pass."""

import copy
import pickle

import pytest
import torch

from model.adapters.gate import Gate


def _gate(combine="gate", sets=2, *, start="last", temperature=1.0, weights=()):
    gate = Gate(6, sets, combine=combine, temperature=temperature, start=start, weights=weights)
    gate.linears = 2
    return gate


def _x():
    return torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_formula_with_the_bias_after_the_softmax(temperature):
    gate, x = _gate(temperature=temperature).double(), _x()
    with torch.no_grad():
        gate.G.normal_(generator=torch.Generator().manual_seed(1))
        gate.b.copy_(torch.tensor([0.3, -0.1]))
    gate.read(x)
    logits = torch.einsum("btd,kd->btk", x, gate.G) / temperature
    wanted = logits.exp() / logits.exp().sum(-1, keepdim=True) + gate.b
    torch.testing.assert_close(gate.weights(), wanted)


@pytest.mark.parametrize("sets", [2, 3, 4, 7])
def test_it_starts_as_the_last_set_alone(sets):
    gate = _gate(sets=sets)
    gate.read(_x().float())
    wanted = torch.zeros(2, 3, sets)
    wanted[..., -1] = 1.0
    torch.testing.assert_close(gate.weights(), wanted, rtol=0, atol=2e-8 * sets)
    if sets in (2, 4):
        assert gate.of(_x().float()).equal(wanted)


def test_other_starts_and_fixed_weights():
    assert _gate(start="uniform").of(_x().float()).unique().tolist() == [0.5]
    assert _gate("uniform", sets=4).weights().tolist() == [0.25] * 4
    assert _gate("constant", weights=(2.0, -1.0)).weights().tolist() == [2.0, -1.0]
    assert not list(_gate("uniform").parameters())
    bias = _gate("bias")
    assert [name for name, _ in bias.named_parameters()] == ["b"]
    assert bias.weights().tolist() == [0.0, 1.0]


def test_logits_are_in_float32_in_half_precision():
    gate = _gate()
    with torch.no_grad():
        gate.G.normal_(generator=torch.Generator().manual_seed(1))
    half = _x().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = gate.of(half)
    assert found.dtype == torch.float32
    assert found.equal(gate.of(half.float()))


def test_nothing_of_a_pass_is_kept_after_its_last_linear():
    gate = _gate()
    gate.read(_x())
    first = gate.weights()
    assert gate.weights() is first
    with pytest.raises(RuntimeError, match="the layer is not running"):
        gate.weights()
    gate.read(_x())
    for other in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        assert other._source is None
        with pytest.raises(RuntimeError):
            other.weights()
