"""An attachment works while it is on, leaves the stock layer when off, and shares work only safely."""

import copy
import gc
import pickle
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from model.adapters.adapter import Adapter
from model.adapters.fused_lora import fused_lora_forward
from model.adapters.methods.lora import Lora
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.site import SHARED_INPUT, Site, SiteKey

ROLES = ("q_proj", "k_proj", "v_proj")


class Layer(nn.Module):
    """Three linears as a stock layer calls them: q, k and v of one tensor, or of three."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4, bias=False)

    def forward(self, q, k=None, v=None):
        k, v = q if k is None else k, q if v is None else v
        return self.q_proj(q) * self.k_proj(k).tanh() * self.v_proj(v).sin()


class Shifted(Adapter):
    """A kind without a fused forward; `merges` is whether its delta is a matrix."""

    def __init__(self, merges=True):
        super().__init__(rank=1, alpha=1.0, dropout=0.0)
        self.matrix, self.merges = nn.Parameter(torch.full((4, 6), 0.5, dtype=torch.float64)), merges

    def forward(self, x):
        return x @ self.matrix.t()

    def factors(self):
        return {"matrix": self.matrix}

    def zero_initialised(self):
        return ()

    def merged_delta(self):
        return self.matrix if self.merges else None


def _adapter(seed, dropout=0.0):
    adapter, source = Lora(6, 4, rank=2, alpha=3.0, dropout=dropout).double(), torch.Generator()
    with torch.no_grad():
        for number, factor in enumerate((adapter.A, adapter.B)):
            factor.copy_(torch.randn(factor.shape, generator=source.manual_seed(10 * seed + number)))
    return adapter


class Host:
    """A layer with its attachments, joined as the framework joins them."""

    def __init__(self, *, dropout=0.0, joined=True, roles=ROLES):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = Layer().double().requires_grad_(False)
        self.calls = []
        self.attachments, form = {}, self._counted if joined else None
        for number, role in enumerate(roles):
            key = SiteKey(0, role)
            site = Site(key, role, 6, 4)
            linear = getattr(self.layer, role)
            self.attachments[key] = LinearAttachment(site, linear, _adapter(number, dropout), form)
        if joined:
            share_inputs(self.attachments, SHARED_INPUT)

    def _counted(self, x, parts):
        self.calls.append(len(parts))
        return fused_lora_forward(x, parts)

    def __getitem__(self, role):
        return self.attachments[SiteKey(0, role)]

    def factors(self):
        return [p for a in self.attachments.values() for p in a.parameters()]


def _x(*shape, seed=5):
    shape = shape or (2, 3, 6)
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _stock():
    return Host(roles=()).layer


def _plain(host, q, k=None, v=None):
    """The layer's output by the formula, every linear for itself."""
    values = {}
    for role, x in zip(ROLES, (q, q if k is None else k, q if v is None else v)):
        linear, attachment = getattr(host.layer, role), host.attachments.get(SiteKey(0, role))
        values[role] = nn.functional.linear(x, linear.weight, linear.bias)
        if attachment is not None and attachment.active:
            values[role] = values[role] + attachment.strength * (x @ attachment.adapter.merged_delta().t())
    return values["q_proj"] * values["k_proj"].tanh() * values["v_proj"].sin()


def test_the_host_keeps_its_keys_class_and_modules():
    host, stock = Host(), _stock()
    assert list(host.layer.state_dict()) == list(stock.state_dict())
    assert [type(m) for m in host.layer.modules()] == [type(m) for m in stock.modules()]
    assert list(host["q_proj"].state_dict()) == ["adapter.A", "adapter.B"]


@pytest.mark.parametrize("off", ["disabled", "strength", "merged", "detached"])
def test_off_is_stock_bit_for_bit(off):
    host = Host()
    for attachment in host.attachments.values():
        if off == "disabled":
            attachment.enabled = False
        elif off == "strength":
            attachment.strength = 0.0
        elif off == "merged":
            attachment.merge()
        else:
            attachment.detach()
        assert "forward" not in attachment.linear.__dict__
    assert host.layer.q_proj.forward.__func__ is nn.Linear.forward
    if off == "merged":
        torch.testing.assert_close(host.layer(_x()), _plain(Host(), _x()))
    else:
        assert torch.equal(host.layer(_x()), _stock()(_x()))
    assert host.calls == []


def test_switching_is_reversible():
    host = Host()
    before = host.layer(_x())
    for attachment in host.attachments.values():
        attachment.enabled = False
        attachment.strength = 0.0
        attachment.enabled = True
        assert not attachment.active
        attachment.strength = 1.0
    assert torch.equal(host.layer(_x()), before)
    torch.testing.assert_close(before, _plain(host, _x()))


def test_strength_scales_each_delta():
    host = Host()
    host["k_proj"].strength, host["v_proj"].strength = -0.5, 2.0
    torch.testing.assert_close(host.layer(_x()), _plain(host, _x()))


@pytest.mark.parametrize("joined", [True, False])
def test_merging_agrees_and_is_idempotent(joined):
    host = Host(joined=joined)
    host["q_proj"].strength = 0.3
    weights = {name: value.clone() for name, value in host.layer.state_dict().items()}
    apart = host.layer(_x())
    for _ in range(2):
        for attachment in host.attachments.values():
            attachment.merge()
            assert attachment.merged
        torch.testing.assert_close(host.layer(_x()), apart)
    for _ in range(2):
        for attachment in host.attachments.values():
            attachment.unmerge()
            assert not attachment.merged
        torch.testing.assert_close(host.layer(_x()), apart)
    torch.testing.assert_close(host.layer.state_dict(), weights)


def test_a_disabled_adapter_is_not_merged():
    host = Host()
    host["q_proj"].enabled = False
    host["q_proj"].merge()
    assert not host["q_proj"].merged
    torch.testing.assert_close(host.layer.q_proj.weight, _stock().q_proj.weight)


@pytest.mark.parametrize("change", [("enabled", False), ("strength", 0.25)])
def test_switching_a_merged_adapter_takes_effect(change):
    merged, plain = Host(), Host()
    for host in (merged, plain):
        if host is merged:
            host["v_proj"].merge()
        setattr(host["v_proj"], *change)
    torch.testing.assert_close(merged.layer(_x()), plain.layer(_x()))


def test_a_delta_that_depends_on_the_input_is_not_merged():
    linear = nn.Linear(6, 4).double()
    attachment = LinearAttachment(Site(SiteKey(0, "w1"), "some.fc1", 6, 4), linear, Shifted(merges=False))
    with pytest.raises(ValueError, match="some.fc1: this adapter depends on its input"):
        attachment.merge()


def test_a_kind_without_a_fused_forward_is_added_to_the_stock_output():
    host = Host(roles=())
    layer = host.layer
    attachment = LinearAttachment(Site(SiteKey(0, "v_proj"), "v_proj", 6, 4), layer.v_proj, Shifted())
    expected = _stock().v_proj(_x()) + _x() @ attachment.adapter.matrix.t()
    torch.testing.assert_close(layer.v_proj(_x()), expected)


def test_one_input_is_computed_once():
    host = Host()
    torch.testing.assert_close(host.layer(_x()), _plain(host, _x()))
    assert host.calls == [3]
    host.layer(_x(seed=6))
    assert host.calls == [3, 3]


@pytest.mark.parametrize("same", [(0, 1, 1), (0, 0, 1), (0, 1, 0), (0, 1, 2)])
def test_different_inputs_are_distinguished(same):
    host = Host()
    inputs = [_x(seed=5 + number) for number in same]
    tensors = [inputs[i] if same.index(n) == i else inputs[same.index(n)] for i, n in enumerate(same)]
    torch.testing.assert_close(host.layer(*tensors), _plain(host, *tensors))
    copies = [x.clone() for x in (tensors[0],) * 3]
    torch.testing.assert_close(host.layer(*copies), _plain(host, *copies))


def test_an_input_changed_in_place_is_computed_afresh():
    host, x = Host(), _x()
    host.layer.q_proj(x)
    x.add_(1.0)
    part = host["k_proj"].adapted_linear()
    torch.testing.assert_close(host.layer.k_proj(x), fused_lora_forward(x, [part])[0])


@pytest.mark.parametrize("first", [torch.no_grad, torch.inference_mode, nullcontext])
@pytest.mark.parametrize("second", [torch.no_grad, torch.inference_mode, nullcontext])
def test_a_change_of_gradient_mode_is_computed_afresh(first, second):
    host, x = Host(), _x()
    with first():
        host.layer.q_proj(x)
    with second():
        output = host.layer.k_proj(x)
    assert output.requires_grad == (second is nullcontext)
    torch.testing.assert_close(output, fused_lora_forward(x, [host["k_proj"].adapted_linear()])[0])


def test_inference_mode_serves_inputs_made_within_it():
    host = Host()
    with torch.inference_mode():
        x = _x() * 1.0
        torch.testing.assert_close(host.layer(x), _plain(host, x))
        host.layer.q_proj(x)
        x.add_(1.0)
        torch.testing.assert_close(
            host.layer.k_proj(x), fused_lora_forward(x, [host["k_proj"].adapted_linear()])[0]
        )


@pytest.mark.parametrize("role", ROLES)
def test_one_member_off(role):
    host = Host()
    host[role].enabled = False
    torch.testing.assert_close(host.layer(_x()), _plain(host, _x()))
    assert host.calls == [2]


def test_a_member_switched_off_between_calls_is_off():
    host, x = Host(), _x()
    host.layer.q_proj(x)
    host["k_proj"].enabled = False
    assert torch.equal(host.layer.k_proj(x), _stock().k_proj(x))


def test_a_member_of_another_strength_between_calls_is_computed_afresh():
    host, x = Host(), _x()
    host.layer.q_proj(x)
    host["k_proj"].strength = 2.0
    torch.testing.assert_close(
        host.layer.k_proj(x), fused_lora_forward(x, [host["k_proj"].adapted_linear()])[0]
    )


def test_a_member_called_twice():
    host, x = Host(), _x()
    one, two, other = host.layer.q_proj(x), host.layer.q_proj(x), host.layer.k_proj(x)
    assert torch.equal(one, two)
    torch.testing.assert_close(other, fused_lora_forward(x, [host["k_proj"].adapted_linear()])[0])


def test_a_host_weight_that_trains_gets_its_gradient():
    host, x = Host(), _x()
    host.layer.q_proj.weight.requires_grad_()
    output = host.layer(x)
    torch.testing.assert_close(output, _plain(host, x))
    output.sum().backward()
    expected = torch.autograd.grad(_plain(host, x).sum(), host.layer.q_proj.weight)[0]
    torch.testing.assert_close(host.layer.q_proj.weight.grad, expected)


@pytest.mark.parametrize("joined", [True, False])
def test_gradients_are_those_of_the_formula(joined):
    host, x = Host(joined=joined), _x().requires_grad_()
    tensors = [x, *host.factors()]
    ours = torch.autograd.grad(host.layer(x).square().sum(), tensors)
    torch.testing.assert_close(ours, torch.autograd.grad(_plain(host, x).square().sum(), tensors))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_gives_equal_gradients(dropout):
    host, x = Host(dropout=dropout), _x().requires_grad_()
    tensors = [x, *host.factors()]
    torch.manual_seed(1)
    plain = torch.autograd.grad(host.layer(x).square().sum(), tensors)
    torch.manual_seed(1)
    output = checkpoint(host.layer, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), tensors), plain, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_nothing_leaks(checkpointed):
    host = Host()
    x = _x().requires_grad_()
    hidden = x * 1.0
    gone = [weakref.ref(hidden)]
    output = checkpoint(host.layer, hidden, use_reentrant=False) if checkpointed else host.layer(hidden)
    for group in {id(a.shared_input): a.shared_input for a in host.attachments.values()}.values():
        assert group._pending == {}
    gone.append(weakref.ref(output))
    output.sum().backward()
    del hidden, output
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_evaluation_mode_of_the_host_silences_dropout():
    host, x = Host(dropout=0.5), _x()
    noisy = host.layer(x)
    host.layer.eval()
    assert torch.equal(host.layer(x), host.layer(x))
    torch.testing.assert_close(host.layer(x), _plain(host, x))
    host.layer.train()
    assert not torch.equal(host.layer(x), noisy)
    host = Host(dropout=0.5, joined=False)
    host.layer.eval()
    torch.testing.assert_close(host.layer(x), _plain(host, x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("in_flight", [False, True])
def test_copies_are_consistent_with_themselves(duplicate, in_flight):
    host, x = Host(), _x()
    for attachment in host.attachments.values():
        attachment.fused_forward = fused_lora_forward
    before = host.layer(x)
    if in_flight:
        host.layer.q_proj(x.clone())
    layer, attachments = duplicate(
        (host.layer, nn.ModuleDict({k.role: a for k, a in host.attachments.items()}))
    )
    assert torch.equal(layer(x), before)
    for role in ROLES:
        assert attachments[role].linear is getattr(layer, role)
        assert getattr(layer, role).__dict__["forward"].__self__ is attachments[role]
        assert attachments[role].shared_input.members == list(attachments.values())
        with torch.no_grad():
            attachments[role].adapter.B.zero_()
    torch.testing.assert_close(layer(x), _stock()(x))
    assert torch.equal(host.layer(x), before)
    attachments["q_proj"].enabled = False
    assert "forward" in host.layer.q_proj.__dict__
    assert "forward" not in layer.q_proj.__dict__


def test_only_roles_that_share_an_input_are_joined():
    roles, layer = ("q_proj", "o_proj", "gate", "w1", "w2"), nn.ModuleList(nn.Linear(6, 4) for _ in range(10))
    attachments = {}
    for number, linear in enumerate(layer):
        key = SiteKey(number // 5, roles[number % 5])
        attachments[key] = LinearAttachment(
            Site(key, str(number), 6, 4), linear, _adapter(number), fused_lora_forward
        )
    share_inputs(attachments, SHARED_INPUT)
    groups = {key: [m.site.key for m in a.shared_input.members] for key, a in attachments.items()}
    for key, members in groups.items():
        together = [SiteKey(key.layer, role) for role in ("gate", "w1")]
        assert members == (together if key in together else [key])
