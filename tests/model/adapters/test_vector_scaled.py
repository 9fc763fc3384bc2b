"""Matrices between vectors: the formula in plain tensors, the node against plain autograd, the state."""

import copy

import pytest
import torch
from torch import nn

from model.adapters import fused_vectors, rematerialisation
from model.adapters.adapter import AdaptedLinear
from model.adapters.drawn_matrices import DrawnMatrices
from model.adapters.fused_vectors import fused_vectors_forward
from model.adapters.vector_scaled import VectorScaled

D_IN, D_OUT, R = 7, 5, 3


def _adapter(seed=0, *, rank=R, d_in=D_IN, d_out=D_OUT, scale=1.0, dropout=0.0, dtype=torch.float64):
    adapter = VectorScaled(d_in, d_out, rank=rank, alpha=4.0, dropout=dropout, scale=scale)
    adapter.reset(torch.Generator().manual_seed(seed), initial_d=0.1, random_b=True)
    with torch.no_grad():
        adapter.d.uniform_(-1, 1, generator=torch.Generator().manual_seed(seed + 1))
    return adapter.to(dtype)


def _draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _written_out(x, adapter, strength=1.0):
    """The formula itself, with B as papers have it."""
    a, b = adapter.A, adapter.B.t()  # (R, D_in), (D_out, R)
    inner = adapter.d * (x @ a.t())
    return strength * adapter.scale * adapter.b * (inner @ b.t())


def test_the_start():
    adapter = VectorScaled(D_IN, D_OUT, rank=R, alpha=4.0, dropout=0.0, scale=1.0)
    adapter.reset(torch.Generator().manual_seed(0), initial_d=0.1, random_b=False)
    assert adapter.d.tolist() == pytest.approx([0.1] * R)
    assert not adapter.b.any()
    for matrix, fan_in in ((adapter.A, D_IN), (adapter.B, R)):
        bound = (6 / fan_in) ** 0.5
        assert 0.7 * bound < matrix.abs().max() <= bound


def test_its_delta_is_the_formula():
    adapter, x = _adapter(scale=0.5), _draw(2, 4, D_IN)
    torch.testing.assert_close(adapter(x), _written_out(x, adapter))
    a, b, scale = adapter.export()
    torch.testing.assert_close(scale * (x @ a.t()) @ b.t(), _written_out(x, adapter))


def _gradients(x, adapters, linears, strength, g, form):
    """Return outputs and all gradients, either by the node or by plain operations."""
    x = x.clone().requires_grad_()
    for adapter in adapters:
        adapter.zero_grad(set_to_none=True)
    if form == "node":
        parts = [AdaptedLinear(w.weight, w.bias, a, strength) for a, w in zip(adapters, linears)]
        outputs = fused_vectors_forward(x, parts)
    else:
        outputs = [w(x) + _written_out(x, a, strength) for a, w in zip(adapters, linears)]
    sum((y * one).sum() for y, one in zip(outputs, g)).backward()
    grads = {f"{i}.{name}": p.grad for i, a in enumerate(adapters) for name, p in a.named_parameters()}
    return outputs, {"x": x.grad, **grads}


@pytest.mark.parametrize("rank", [3, 40])  # below and above the number of tokens
@pytest.mark.parametrize("still", [(), ("A",), ("B",), ("A", "B")])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("passes", [0, 48])  # keep the product before v_b, or never
def test_the_node_is_plain_autograd(rank, still, count, passes, monkeypatch):
    monkeypatch.setattr(fused_vectors, "PASS", passes)
    widths = [(D_OUT, 6, 4)[i] for i in range(count)]
    adapters = [_adapter(i, rank=rank, d_out=w, scale=0.5) for i, w in enumerate(widths)]
    linears = [nn.Linear(D_IN, w, dtype=torch.float64).requires_grad_(False) for w in widths]
    for name in still:
        getattr(adapters[-1], name).requires_grad_(False)
    x, g = _draw(2, 4, D_IN), [_draw(2, 4, w, seed=9) for w in widths]
    found, expected = (_gradients(x, adapters, linears, 0.7, g, form) for form in ("node", "plain"))
    torch.testing.assert_close(found[0], expected[0])
    for name, gradient in expected[1].items():
        assert (found[1][name] is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(found[1][name], gradient)


def test_linears_that_share_an_a_compute_its_product_once():
    adapters, linears = [_adapter(i) for i in range(3)], []
    for adapter in adapters:
        adapter.A = adapters[0].A
        linears.append(nn.Linear(D_IN, D_OUT, dtype=torch.float64).requires_grad_(False))
    x, g = _draw(2, 4, D_IN), [_draw(2, 4, D_OUT, seed=i) for i in range(3)]
    found, expected = (_gradients(x, adapters, linears, 1.0, g, form) for form in ("node", "plain"))
    torch.testing.assert_close(found, expected)
    assert len(fused_vectors._distinct([a.A for a in adapters])[0]) == 1


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_frozen_matrix_gets_no_gradient_and_the_rest_the_same(name):
    adapter, other = _adapter(), _adapter()
    linear = nn.Linear(D_IN, D_OUT, dtype=torch.float64).requires_grad_(False)
    x, g = _draw(4, D_IN), [_draw(4, D_OUT, seed=2)]
    expected = _gradients(x, [other], [linear], 1.0, g, "node")[1]
    adapter.frozen.add(name)
    found = _gradients(x, [adapter], [linear], 1.0, g, "node")[1]
    assert found.pop(f"0.{name}") is None
    assert expected.pop(f"0.{name}").any()
    torch.testing.assert_close(found, expected)
    adapter.zero_grad()
    adapter(x).sum().backward()
    assert getattr(adapter, name).grad is None
    assert getattr(adapter, name).requires_grad  # processes wait for it all the same


def _saved(x, adapter):
    """Return the shapes of what a forward pass of the node keeps for the backward pass."""
    linear, kept = nn.Linear(D_IN, D_OUT, dtype=torch.float64).requires_grad_(False), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused_vectors_forward(x.requires_grad_(), [AdaptedLinear(linear.weight, linear.bias, adapter, 1.0)])
    return [t for t in kept if t.shape[0] == len(x)]


def test_the_input_is_kept_only_while_a_trains(monkeypatch):
    adapter = _adapter()
    assert [t.shape[1] for t in _saved(_draw(11, D_IN), adapter)] == [D_IN, R]
    adapter.frozen.add("A")
    assert [t.shape[1] for t in _saved(_draw(11, D_IN), adapter)] == [R]
    monkeypatch.setattr(fused_vectors, "PASS", 0)
    adapter.frozen.add("B")
    assert [t.shape[1] for t in _saved(_draw(11, D_IN), adapter)] == [R, D_OUT]


def _made(source, adapter):
    """Return gradients behind an activation, and how many tensors of its input's shape are kept."""
    linear, kept = nn.Linear(D_IN, D_OUT, dtype=torch.float64).requires_grad_(False), []
    source = source.clone().requires_grad_()
    adapter.zero_grad(set_to_none=True)
    x = nn.functional.gelu(source)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        (output,) = fused_vectors_forward(x, [AdaptedLinear(linear.weight, linear.bias, adapter, 1.0)])
    (output * _draw(*output.shape, seed=4)).sum().backward()
    return [p.grad for p in adapter.parameters()], kept.count(x.shape)


def test_an_input_that_can_be_recomputed_is_not_kept(monkeypatch):
    adapter, source = _adapter(), _draw(11, D_IN)
    kept, count = _made(source, adapter)
    monkeypatch.setattr(rematerialisation, "WORTHWHILE", 0)
    again, less = _made(source, adapter)
    assert (count, less) == (1, 0)
    assert all(torch.equal(a, b) for a, b in zip(kept, again))


def test_one_optimiser_step_moves_what_is_not_frozen():
    adapter = _adapter(dtype=torch.float32)
    adapter.frozen.add("A")
    before = copy.deepcopy(adapter.state_dict())
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.5)
    adapter(_draw(4, D_IN, dtype=torch.float32)).square().sum().backward()
    optimizer.step()
    moved = {name: not torch.equal(value, before[name]) for name, value in adapter.state_dict().items()}
    assert moved == {"A": False, "B": True, "d": True, "b": True}


@pytest.mark.parametrize("autocast", [torch.bfloat16])
def test_autocast_is_near_the_whole_precision(autocast):
    adapter = _adapter(dtype=torch.float32)
    linear = nn.Linear(D_IN, D_OUT).requires_grad_(False)
    x, g = _draw(16, D_IN, dtype=torch.float32), [_draw(16, D_OUT, seed=3, dtype=torch.float32)]
    whole = _gradients(x, [adapter], [linear], 1.0, g, "node")
    with torch.autocast("cpu", autocast):
        half = _gradients(x, [adapter], [linear], 1.0, g, "node")
    for name, gradient in whole[1].items():
        assert half[1][name].dtype == torch.float32
        torch.testing.assert_close(half[1][name], gradient, rtol=0.05, atol=0.15)


def test_a_lora_is_held_exactly():
    adapter, x = _adapter(scale=2.0), _draw(4, D_IN)
    a, b = _draw(R, D_IN, seed=4), _draw(D_OUT, R, seed=5)
    adapter.load(a, b, 3.0)
    torch.testing.assert_close(adapter(x), 3.0 * (x @ a.t()) @ b.t())


def _drawn(seed):
    adapter = _adapter(dtype=torch.float32)
    for name in ("A", "B"):
        getattr(adapter, name).requires_grad_(False)
    adapter.draw(seed, {"A": "one", "B": "two"}, DrawnMatrices())
    return adapter


def test_drawn_matrices_are_not_in_the_state_but_come_from_it():
    one, two = _drawn(5), _drawn(6)
    assert set(one.state_dict()) == {"d", "b", "origin"}
    assert not torch.equal(one.A, two.A)
    two.load_state_dict(one.state_dict())
    for name in ("A", "B", "d", "b", "origin"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    wide = copy.deepcopy(one).double()
    assert torch.equal(wide.A, one.A.double())


def test_another_generator_is_noticed():
    state = _drawn(5).state_dict()
    state["origin"][1] += 1
    with pytest.raises(ValueError, match="seed 5 draws other matrices here than where it was saved"):
        _drawn(6).load_state_dict(state)
