"""LoRA-Flow at one linear: the formula in plain tensors, sets of several ranks, shared inputs, merging."""

import pytest
import torch

from configs.runtime import kinds
from model.adapters.adapter import AdaptedLinear, PlannedSite
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

KIND = kinds.load(kinds.ADAPTERS, "flow")
CONFIG = AdapterConfig(1, 1.0, 0.0, "default", False, method="flow")
ROLES = ("q_proj", "v_proj", "w2")
D = 8
WIDTHS = {"q_proj": 8, "v_proj": 4, "w2": 8}


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sets(role, ranks=(2, 5), scales=(2.0, 0.5)):
    return [
        None
        if rank == 0
        else (_draw(rank, D, seed=10 + n), _draw(WIDTHS[role], rank, seed=20 + n), scales[n % 2])
        for n, rank in enumerate(ranks)
    ]


def _built(ranks=None, **options):
    ranks = ranks or dict.fromkeys(ROLES, (2, 5))
    count = len(next(iter(ranks.values())))
    bound = KIND.options(width=D, sets=count, **options)
    planned = [PlannedSite(Site(SiteKey(0, r), r, D, WIDTHS[r]), CONFIG, bound) for r in ranks]
    built = {key.role: adapter.double() for key, adapter in KIND.build(planned, 0).items()}
    for role, adapter in built.items():
        adapter.take(_sets(role, ranks[role]))
    return built


def _shake(gate):
    with torch.no_grad():
        gate.G.copy_(_draw(*gate.G.shape, seed=30))
        gate.b.copy_(_draw(*gate.b.shape, seed=31))


def _wanted(adapter, role, x, u, ranks=(2, 5)):
    w = (x @ adapter.gate.G.t()).softmax(-1) + adapter.gate.b
    return sum(
        w[..., n : n + 1] * form[2] * (u @ form[0].t() @ form[1].t())
        for n, form in enumerate(_sets(role, ranks))
        if form is not None
    )


def test_the_formula():
    built, x, u = _built(), _draw(2, 3, D), _draw(2, 3, D, seed=5)
    gate = built["q_proj"].gate
    _shake(gate)
    gate.read(x)
    for role, adapter in built.items():
        torch.testing.assert_close(adapter(u), _wanted(adapter, role, x, u))


def test_sets_may_lack_a_linear():
    ranks = {"q_proj": (0, 3), "v_proj": (4, 0), "w2": (1, 2)}
    built, x, u = _built(ranks), _draw(5, D), _draw(5, D, seed=5)
    _shake(built["q_proj"].gate)
    built["q_proj"].gate.read(x)
    for role, adapter in built.items():
        torch.testing.assert_close(adapter(u), _wanted(adapter, role, x, u, ranks[role]))


def test_one_gate_a_layer_owned_by_its_first_linear():
    built = _built()
    assert len({id(adapter.gate) for adapter in built.values()}) == 1
    assert {role: sorted(adapter.state_dict()) for role, adapter in built.items()} == {
        "q_proj": ["gate.G", "gate.b"],
        "v_proj": [],
        "w2": [],
    }
    assert list(built["q_proj"].factors()) == ["gate.G", "gate.b"]


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("flat", [False, True])
def test_the_fused_forward_is_base_plus_delta_with_its_gradients(strength, flat):
    """Also where the host flattens batch and time before the linear."""
    built = {role: one for role, one in _built().items() if role != "w2"}
    gate = built["q_proj"].gate
    gate.linears = 2
    _shake(gate)
    x = _draw(2, 3, D).requires_grad_()
    linears = [
        AdaptedLinear(_draw(WIDTHS[role], D, seed=40), _draw(WIDTHS[role], seed=41), adapter, strength)
        for role, adapter in built.items()
    ]
    gate.read(x)
    outputs = KIND.fused_forward(x.flatten(0, 1) if flat else x, linears)
    sum((y**2).sum() for y in outputs).backward()
    found = (x.grad, gate.G.grad, gate.b.grad)
    x.grad = gate.G.grad = gate.b.grad = None
    plain = [
        x @ one.weight.t() + one.bias + strength * _wanted(one.adapter, role, x, x)
        for role, one in zip(built, linears)
    ]
    for y, wanted in zip(outputs, plain):
        torch.testing.assert_close(y.view(wanted.shape), wanted)
    sum((y**2).sum() for y in plain).backward()
    for ours, theirs in zip(found, (x.grad, gate.G.grad, gate.b.grad)):
        torch.testing.assert_close(ours, theirs)


def test_its_start_is_the_last_set_alone():
    built, u = _built(), _draw(4, D)
    for role, adapter in built.items():
        adapter.gate.read(_draw(4, D, seed=9))
        a, b, scale = _sets(role)[-1]
        torch.testing.assert_close(adapter(u), scale * (u @ a.t() @ b.t()))


@pytest.mark.parametrize(("combine", "weights"), [("uniform", (0.5, 0.5)), ("constant", (0.25, 2.0))])
def test_fixed_weights_merge_into_one_matrix(combine, weights):
    keys = {"weights": ",".join(map(str, weights))} if combine == "constant" else {}
    built, u = _built(combine=combine, **keys), _draw(4, D)
    for role, adapter in built.items():
        wanted = sum(w * form[2] * (form[1] @ form[0]) for w, form in zip(weights, _sets(role)))
        torch.testing.assert_close(adapter.merged_delta(), wanted)
        torch.testing.assert_close(adapter(u), u @ wanted.t())


def test_weights_by_token_cannot_be_merged():
    assert _built()["q_proj"].merged_delta() is None
