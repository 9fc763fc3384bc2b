"""Experts compute the sum over experts, written out as a loop, whatever form computes it."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from model.adapters.adapter import AdaptedLinear
from model.adapters.experts import Experts, router_logits, router_weights, weigh_ranks
from model.adapters.fused_experts import fused_experts_forward

MANNERS = [(True, True), (False, True), (True, False), (False, False)]
"""(one A for all, a router)."""
of_every_manner = pytest.mark.parametrize(("shared_a", "routed"), MANNERS)


def _tensor(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _experts(shared_a, routed, *, heads=3, rank=2, d_out=5, seed=0, dropout=0.0, dtype=torch.float64):
    adapter = Experts(
        6, d_out, rank=rank, heads=heads, alpha=3.0, dropout=dropout, shared_a=shared_a, routed=routed
    ).to(dtype)
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.copy_(_tensor(*parameter.shape, seed=seed + number))
    return adapter


def _part(adapter, *, seed, bias=True, strength=0.7):
    d_out = adapter.B.shape[1]
    weight, offset = _tensor(d_out, 6, seed=seed), _tensor(d_out, seed=seed + 1) if bias else None
    return AdaptedLinear(weight.to(adapter.A.dtype), offset, adapter, strength)


def _loop(x, adapter):
    """(alpha / R) sum_i w_i B_i A_i x, an expert after the other, in the paper's letters."""
    factors, rank = adapter.factors(), adapter.rank
    w = torch.full((*x.shape[:-1], adapter.heads), 1 / adapter.heads, dtype=x.dtype)
    if "router" in factors:
        w = torch.softmax(x @ factors["router"].t(), -1)
    total = 0
    for i in range(adapter.heads):
        a = factors["A"] if adapter.shared_a else factors["A"][i * rank : (i + 1) * rank]
        total = total + w[..., i : i + 1] * (x @ a.t() @ factors[f"B{i}"].t())
    return adapter.alpha / rank * total


def _base(x, part):
    return x @ part.weight.t() + (0 if part.bias is None else part.bias)


def _gradients(outputs, tensors):
    total = sum((y * _tensor(*y.shape, seed=90 + i).to(y.dtype)).sum() for i, y in enumerate(outputs))
    return torch.autograd.grad(total, tensors)


@of_every_manner
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6)])
def test_the_delta_is_the_sum_over_experts(shared_a, routed, heads, shape):
    adapter, x = _experts(shared_a, routed, heads=heads), _tensor(*shape, seed=80).requires_grad_()
    tensors = [x, *adapter.parameters()]
    ours, expected = adapter(x), _loop(x, adapter)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        _gradients([ours], tensors), _gradients([expected], tensors), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_node_is_the_formula_for_unlike_neighbours(shape, count):
    adapters = [
        _experts(shared_a, routed, heads=2 + number, rank=1 + number % 3, d_out=4 + number, seed=10 * number)
        for number, (shared_a, routed) in enumerate(MANNERS)
    ][:count]
    parts = [_part(one, seed=70 + i, bias=i != 1) for i, one in enumerate(adapters)]
    x = _tensor(*shape, seed=80).requires_grad_()
    tensors = [x, *(p for one in adapters for p in one.parameters())]
    ours = fused_experts_forward(x, parts)
    expected = [_base(x, part) + part.strength * _loop(x, part.adapter) for part in parts]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        _gradients(ours, tensors), _gradients(expected, tensors), rtol=1e-11, atol=1e-11
    )


@of_every_manner
def test_gradcheck_of_the_node(shared_a, routed):
    parts = [_part(_experts(shared_a, routed, seed=10 * i), seed=50 + i, strength=1.3) for i in range(2)]
    named = [(part.adapter, name, p) for part in parts for name, p in part.adapter.named_parameters()]
    factors = [p.detach().clone().requires_grad_() for _, _, p in named]

    def compute(x, *factors):
        for (adapter, name, _), factor in zip(named, factors):
            adapter._parameters[name] = factor
        return tuple(fused_experts_forward(x, parts))

    assert torch.autograd.gradcheck(compute, (_tensor(3, 6, seed=1).requires_grad_(), *factors))


@pytest.mark.parametrize("manner", ["plain", "node"])
@of_every_manner
def test_dropout_is_drawn_once_and_the_router_reads_what_was_not_dropped(
    shared_a, routed, manner, monkeypatch
):
    adapter, x = _experts(shared_a, routed, dropout=0.5).train(), _tensor(4, 6, seed=80).requires_grad_()
    keep = torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0, 0.0], dtype=x.dtype)
    drawn = []
    monkeypatch.setattr(F, "dropout", lambda t, p=0.5, training=True: drawn.append(p) or t * keep)
    part = _part(adapter, seed=70)
    ours = adapter(x) if manner == "plain" else fused_experts_forward(x, [part])[0]
    assert drawn == [0.5]
    mixture = adapter.mixture()
    z = (x * keep) @ mixture.A.t() * adapter.scale
    if mixture.router is not None:
        z = weigh_ranks(z, torch.softmax(x @ mixture.router.t(), -1), adapter.rank)
    expected = z @ mixture.B if manner == "plain" else _base(x, part) + part.strength * z @ mixture.B
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    tensors = [x, *adapter.parameters()]
    torch.testing.assert_close(_gradients([ours], tensors), _gradients([expected], tensors))


def test_the_router_computes_in_float32_under_lower_precision():
    router, x = 30 * _tensor(4, 6, seed=3, dtype=torch.float32), _tensor(50, 6, seed=4).bfloat16()
    expected = torch.softmax(x.float() @ router.t(), -1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(router_weights(x, router), expected)
    assert router_weights(x.double(), router.double()).dtype == torch.float64
    in_bf16 = torch.softmax((x @ router.bfloat16().t()).float(), -1)
    assert (in_bf16 - expected).abs().max() > 0.01  # what computing logits in bfloat16 would give


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("experts", [1, 12, 13])
@pytest.mark.parametrize("tokens", [0, 1, 7, 450])
def test_logits_of_routers_are_a_float32_product_in_any_number_of_parts(tokens, experts, dtype):
    x = _tensor(tokens, 1536, seed=5, dtype=torch.float32).to(dtype)
    router = _tensor(experts, 1536, seed=6, dtype=torch.float32)
    logits, exact = router_logits(x, router), x.double() @ router.double().t()
    assert logits.dtype == torch.float32
    assert logits.shape == exact.shape
    bound = 1e-6 * x.double().abs() @ router.double().abs().t()  # no more than sums of float32 lose
    assert ((logits - exact).abs() <= bound).all()


@of_every_manner
def test_autocast_stays_close_to_float32(shared_a, routed):
    part = _part(_experts(shared_a, routed, dtype=torch.float32), seed=70, bias=False)
    x = _tensor(7, 6, seed=80, dtype=torch.float32).requires_grad_()
    tensors = [x, *part.adapter.parameters()]
    expected = fused_experts_forward(x, [part])
    wanted = _gradients(expected, tensors)
    with torch.autocast("cpu", torch.bfloat16):
        ours = fused_experts_forward(x, [part])
        plain = part.adapter(x)
    assert ours[0].dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(ours[0].float(), expected[0], rtol=0.05, atol=0.2)
    found = _gradients(ours, tensors)
    for one, other in zip(found, wanted):
        assert one.dtype == other.dtype
        assert (one - other).norm() < 0.05 * other.norm()


@of_every_manner
def test_one_expert_is_lora(shared_a, routed):
    adapter, x = _experts(shared_a, routed, heads=1), _tensor(4, 6, seed=80)
    lora = adapter.scale * (x @ adapter.A.t()) @ adapter.B
    torch.testing.assert_close(adapter(x), lora, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(adapter.with_fixed_weights(torch.ones(1)).B, adapter.B)


@of_every_manner
def test_fixed_weights_make_a_plain_lora(shared_a, routed):
    adapter, x, weights = _experts(shared_a, routed), _tensor(4, 6, seed=80), torch.tensor([0.2, 0.5, 0.3])
    a, b, router = adapter.with_fixed_weights(weights)
    assert router is None
    one = adapter.factors()
    split = [one["A"]] * 3 if shared_a else one["A"].split(adapter.rank)
    expected = sum(w * (x @ a_i.t()) @ one[f"B{i}"].t() for i, (w, a_i) in enumerate(zip(weights, split)))
    torch.testing.assert_close((x @ a.t()) @ b, expected)


def test_its_start_is_loras_own_and_the_router_has_another_source():
    one, two = (
        Experts(6, 5, rank=2, heads=heads, alpha=3.0, dropout=0.0, shared_a=True, routed=True)
        for heads in (1, 3)
    )
    for adapter in (one, two):
        adapter.reset(torch.Generator().manual_seed(4), torch.Generator().manual_seed(5), random_b=False)
    assert torch.equal(one.A, two.A)
    assert not torch.equal(one.router[0], one.A[0])
    assert two.router.abs().max() <= 6**-0.5
    assert two.router.unique().numel() == 18
    assert not two.B.any()


def test_weights_are_shown_to_an_observer_alone():
    adapters, x = [_experts(True, True, seed=s) for s in (0, 9)], _tensor(2, 4, 6, seed=80)
    parts = [_part(one, seed=70) for one in adapters]
    before, seen = fused_experts_forward(x, parts), {0: [], 1: []}
    for number, one in enumerate(adapters):
        one.observer = seen[number].append
    torch.testing.assert_close(fused_experts_forward(x, parts), before, rtol=0, atol=0)
    adapters[1](x)
    assert [len(seen[number]) for number in seen] == [1, 2]
    for number, one in enumerate(adapters):
        expected = torch.softmax(x.flatten(0, 1) @ one.router.t(), -1)
        for weights in seen[number]:
            torch.testing.assert_close(weights, expected)
            assert not weights.requires_grad


def test_it_can_be_copied_and_pickled():
    adapter, x = _experts(True, True), _tensor(4, 6, seed=80)
    for other in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert torch.equal(other(x), adapter(x))
