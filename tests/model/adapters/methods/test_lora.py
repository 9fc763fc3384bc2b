"""The LoRA node computes the formula, its gradients, and nothing that is not needed."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.adapters.adapter import AdaptedLinear, PlannedSite
from model.adapters.fused_lora import fused_lora_forward
from model.adapters.methods.lora import ADAPTER, Lora
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey
from model.tensors.random_state import generator

WIDTHS = ((5, 3), (7, 2), (5, 4))
"""(D_out, R) of the linears in a fused computation; D_in is 6."""


def _tensor(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _lora(d_out, rank, *, seed, d_in=6, alpha=3.0, dropout=0.0, dtype=torch.float64):
    adapter = Lora(d_in, d_out, rank=rank, alpha=alpha, dropout=dropout).to(dtype)
    with torch.no_grad():
        adapter.A.copy_(_tensor(rank, d_in, seed=seed))
        adapter.B.copy_(_tensor(rank, d_out, seed=seed + 1))
    return adapter


def _part(d_out, rank, *, seed, bias=True, strength=1.0, dtype=torch.float64, **options):
    weight = _tensor(d_out, 6, seed=seed + 2).to(dtype)
    offset = _tensor(d_out, seed=seed + 3).to(dtype) if bias else None
    return AdaptedLinear(weight, offset, _lora(d_out, rank, seed=seed, dtype=dtype, **options), strength)


def _parts(count, **options):
    return [_part(*WIDTHS[i], seed=10 * i, bias=i != 1, **options) for i in range(count)]


def _formula(x, part):
    """y = x W^T + b + strength (alpha / R) (x A^T) B^T, in the paper's letters."""
    a, b = part.adapter.A, part.adapter.B.t()
    base = x @ part.weight.t() + (0 if part.bias is None else part.bias)
    return base + part.strength * part.adapter.alpha / part.adapter.rank * (x @ a.t()) @ b.t()


def _gradients(outputs, tensors):
    total = sum((y * _tensor(*y.shape, seed=90 + i).to(y.dtype)).sum() for i, y in enumerate(outputs))
    return torch.autograd.grad(total, tensors)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6), (2, 0, 6), (1, 1, 1, 6)])
def test_values_and_gradients_are_the_formula(count, shape):
    parts, x = _parts(count, strength=0.7), _tensor(*shape, seed=80).requires_grad_()
    tensors = [x] + [t for part in parts for t in (part.adapter.A, part.adapter.B)]
    ours, expected = fused_lora_forward(x, parts), [_formula(x, part) for part in parts]
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        _gradients(ours, tensors), _gradients(expected, tensors), rtol=1e-11, atol=1e-11
    )


def test_a_bias_that_trains_gets_its_gradient():
    parts, x = _parts(3), _tensor(4, 6, seed=80)
    parts[2].bias.requires_grad_()
    ours = _gradients(fused_lora_forward(x, parts), [parts[2].bias])
    expected = _gradients([_formula(x, part) for part in parts], [parts[2].bias])
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_gradcheck(count):
    parts = _parts(count, strength=1.3)
    factors = [t.detach().requires_grad_() for p in parts for t in (p.adapter.A, p.adapter.B)]

    def compute(x, *factors):
        for i, part in enumerate(parts):
            part.adapter.__dict__["_parameters"] = {"A": factors[2 * i], "B": factors[2 * i + 1]}
        return tuple(fused_lora_forward(x, parts))

    assert torch.autograd.gradcheck(compute, (_tensor(3, 6, seed=1).requires_grad_(), *factors))


def test_linears_computed_together_equal_those_computed_apart():
    parts, x = _parts(3), _tensor(2, 3, 6, seed=80).requires_grad_()
    tensors = [x] + [t for part in parts for t in (part.adapter.A, part.adapter.B)]
    together, apart = fused_lora_forward(x, parts), [fused_lora_forward(x, [part])[0] for part in parts]
    torch.testing.assert_close(together, apart, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        _gradients(together, tensors), _gradients(apart, tensors), rtol=1e-12, atol=1e-12
    )


def test_a_strided_input_is_taken():
    parts = _parts(3)
    x = _tensor(6, 3, 2, seed=80).requires_grad_()
    turned = x.transpose(0, 2)
    ours, expected = (fused_lora_forward(t, parts) for t in (turned, turned.contiguous()))
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    torch.testing.assert_close(_gradients(ours, [x]), _gradients(expected, [x]), rtol=0, atol=0)


@pytest.mark.parametrize("wants", range(8))
def test_gradients_are_computed_only_where_they_are_needed(wants):
    parts, x = _parts(2), _tensor(4, 6, seed=80)
    named = {"x": x} | {f"A{i}": p.adapter.A for i, p in enumerate(parts)}
    named |= {f"B{i}": p.adapter.B for i, p in enumerate(parts)}
    wanted = [name for i, name in enumerate(("x", "A", "B")) if wants >> i & 1]
    for name, tensor in named.items():
        tensor.requires_grad_(name[0] in wanted)
    outputs = fused_lora_forward(x, parts)
    assert all(y.requires_grad == bool(wanted) for y in outputs)
    if wanted:
        sum(y.square().sum() for y in outputs).backward()
    assert {name for name, t in named.items() if t.grad is not None} == {n for n in named if n[0] in wanted}


def test_one_frozen_factor_among_several_linears_gets_no_gradient():
    parts, x = _parts(2), _tensor(4, 6, seed=80)
    parts[0].adapter.A.requires_grad_(False)
    parts[1].adapter.B.requires_grad_(False)
    ours = fused_lora_forward(x, parts)
    sum(y.sum() for y in ours).backward()
    assert parts[0].adapter.A.grad is None
    assert parts[1].adapter.B.grad is None
    wanted = [parts[0].adapter.B, parts[1].adapter.A]
    expected = torch.autograd.grad(sum(_formula(x, part).sum() for part in parts), wanted)
    torch.testing.assert_close(tuple(t.grad for t in wanted), expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_x_is_kept_for_the_backward_pass_only_while_an_a_trains(frozen):
    parts, x, saved = _parts(2), _tensor(4, 6, seed=80), []
    for part in parts:
        part.adapter.A.requires_grad_(not frozen)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        fused_lora_forward(x, parts)
    assert (x.data_ptr() in saved) == (not frozen)


def test_strength_multiplies_the_delta_alone():
    x = _tensor(4, 6, seed=80)
    parts = [_part(5, 3, seed=0, strength=s) for s in (0.0, 1.0, 2.0)]
    (zero,), (one,), (two,) = (fused_lora_forward(x, [part]) for part in parts)
    part = _part(5, 3, seed=0)
    torch.testing.assert_close(zero, F.linear(x, part.weight, part.bias))
    torch.testing.assert_close(two - zero, 2 * (one - zero))
    torch.testing.assert_close(one - zero, part.adapter(x))


def _peft_like(x, linear, adapter):
    """The layers as PEFT runs them, each product under autocast's own rules."""
    return linear(x) + F.linear(F.linear(x, adapter.A), adapter.B.t()) * adapter.scale


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_autocast_is_that_of_stock_layers(stored):
    linear = nn.Linear(6, 5).to(stored).requires_grad_(False)
    adapter = _lora(5, 3, seed=0, dtype=torch.float32)
    x = _tensor(8, 6, seed=80, dtype=torch.float32).requires_grad_()
    tensors = [x, adapter.A, adapter.B]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (ours,) = fused_lora_forward(x, [AdaptedLinear(linear.weight, linear.bias, adapter, 1.0)])
        theirs = _peft_like(x, linear, adapter)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=4e-2)
    mine, others = _gradients([ours], tensors), _gradients([theirs], tensors)
    assert [g.dtype for g in mine] == [t.dtype for t in tensors]
    torch.testing.assert_close(mine, others, rtol=4e-2, atol=1e-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_output_has_the_inputs_type_whatever_is_stored(dtype):
    part = _part(5, 3, seed=0, dtype=torch.float32)
    x = _tensor(8, 6, seed=80, dtype=dtype).requires_grad_()
    (y,) = fused_lora_forward(x, [part])
    y.float().sum().backward()
    assert (y.dtype, x.grad.dtype, part.adapter.A.grad.dtype) == (dtype, dtype, torch.float32)


def test_dropout_is_drawn_once_for_values_and_gradients():
    adapter = _lora(6, 6, seed=0, alpha=6.0, dropout=0.5)
    with torch.no_grad():
        adapter.A.copy_(torch.eye(6))
        adapter.B.copy_(torch.eye(6))
    part = AdaptedLinear(torch.zeros(6, 6, dtype=torch.float64), None, adapter, 1.0)
    x = torch.ones(50, 6, dtype=torch.float64, requires_grad=True)
    (y,) = fused_lora_forward(x, [part])
    assert set(y.unique().tolist()) == {0.0, 2.0}
    (y,) = fused_lora_forward(x, [part])
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    torch.testing.assert_close(adapter.A.grad, y.detach().sum(0).expand(6, 6))


def test_dropout_leaves_the_base_alone_and_is_off_in_evaluation():
    part = _part(5, 3, seed=0, dropout=0.5)
    x = _tensor(8, 6, seed=80)
    noisy = fused_lora_forward(x, [part])[0]
    with torch.no_grad():
        part.adapter.B.zero_()
    torch.testing.assert_close(fused_lora_forward(x, [part])[0], F.linear(x, part.weight, part.bias))
    part = _part(5, 3, seed=0, dropout=0.5)
    part.adapter.eval()
    quiet = fused_lora_forward(x, [part])[0]
    torch.testing.assert_close(quiet, _formula(x, part))
    assert not torch.equal(quiet, noisy)
    state = torch.get_rng_state()
    fused_lora_forward(x, [part])
    assert torch.equal(torch.get_rng_state(), state)


def test_each_linear_draws_its_own_dropout():
    parts = [_part(5, 3, seed=0, dropout=0.5), _part(5, 3, seed=0, dropout=0.5)]
    one, two = fused_lora_forward(_tensor(8, 6, seed=80), parts)
    assert not torch.equal(one, two)


def test_the_module_alone_returns_the_delta():
    adapter, x = _lora(5, 3, seed=0), _tensor(2, 4, 6, seed=80)
    expected = x @ adapter.merged_delta().t()
    torch.testing.assert_close(adapter(x), expected)
    factors = adapter.factors()
    assert (factors["A"].shape, factors["B"].shape) == ((3, 6), (5, 3))
    torch.testing.assert_close(adapter.merged_delta(), factors["B"] @ factors["A"])
    assert factors["B"].data_ptr() == adapter.B.data_ptr()


def test_the_start_is_kaiming_uniform_and_zero():
    adapter = Lora(48, 9, rank=40, alpha=8, dropout=0.0)
    adapter.reset(torch.Generator().manual_seed(1))
    bound = math.sqrt(6 / ((1 + 5) * 48))  # gain sqrt(2 / (1 + a^2)) with a = sqrt 5, times sqrt(3 / fan_in)
    assert adapter.A.abs().max() <= bound
    assert adapter.A.abs().max() > 0.99 * bound
    torch.testing.assert_close(adapter.A.std(), torch.tensor(bound / math.sqrt(3)), rtol=5e-2, atol=0)
    assert not adapter.B.any()


def _config(**changes):
    plain = {"rank": 4, "alpha": 8.0, "dropout": 0.1, "adapter_name": "default", "disabled": False}
    return AdapterConfig(**plain | changes)


def _built(*keys, seed=0, **changes):
    sites = [Site(key, f"at.{key}", 6, 5) for key in keys]
    return ADAPTER.build([PlannedSite(site, _config(**changes), ADAPTER.options()) for site in sites], seed)


def test_a_start_depends_on_seed_and_site_alone():
    one, two = SiteKey(0, "q_proj"), SiteKey(1, "q_proj")
    state = torch.get_rng_state()
    both, alone, other = _built(one, two), _built(two), _built(two, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(both[two].A, alone[two].A)
    assert not torch.equal(both[one].A, both[two].A)
    assert not torch.equal(alone[two].A, other[two].A)
    expected = Lora(6, 5, rank=4, alpha=8.0, dropout=0.1)
    expected.reset(generator(0, "lora", str(two)))
    assert torch.equal(alone[two].A, expected.A)


def test_without_the_usual_start_b_is_drawn_too():
    key = SiteKey(0, "w1")
    adapter = _built(key, init=False)[key]
    assert adapter.B.any()
    assert adapter.B.abs().max() <= 0.5


def test_loading_rescales_b_to_the_own_scale():
    adapter, other = _lora(5, 3, seed=0, alpha=3.0), _lora(5, 3, seed=7, alpha=12.0)
    a, b, scale = ADAPTER.export(other)
    ADAPTER.load(adapter, a, b, scale)
    torch.testing.assert_close(adapter.merged_delta(), other.merged_delta())
    assert adapter.scale == 1.0
