"""Every kind of adapter keeps the contract at every family's sites."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from transformers import AutoModelForSequenceClassification

from configs.runtime import kinds
from model.exchange.export import collect
from model.exchange.load import attach_peft
from model.exchange.peft_format import read, write
from model.injection.attach import attach, locate, locate_stream
from model.injection.linear_attachment import share_inputs
from model.injection.residual_stream import Stream
from model.network.family import dimensions, model_types
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import projection_config
from model.site import HEAD_ROLES, SHARED_INPUT, SiteKey
from tests.support.tiny import tiny_network

METHODS = tuple(
    name for name in kinds.names(kinds.ADAPTERS) if kinds.load(kinds.ADAPTERS, name).takes_sets is None
)
"""Kinds that a plan builds; the one that fuses trained sets: end_to_end/adapters/test_flow.py."""
BY_HEAD = tuple(f"{method} by head" for method in METHODS if kinds.load(kinds.ADAPTERS, method).by_head)
KEYS = {
    "hydra with uniform weights": {"router": "uniform"},
    "lora_split with one component": {"component": 1},
    "lora_split with a router": {"combine": "routed"},
}
"""Kinds with keys of their own that change what computes or trains."""
MANNERS = (*METHODS, *BY_HEAD, *KEYS)
HOSTS = sorted(model_types())
of_every_kind = pytest.mark.parametrize("method", MANNERS)


@functools.cache
def _stock(host):
    """Return a frozen tiny host in float64 that tests share and leave as it is."""
    network = tiny_network(model_types()[host], AutoModelForSequenceClassification, model_type=host)
    return network.requires_grad_(False).double()


def _seen_by_adapters(host):
    """Return how a host looks from its sites: widths and biases of linears, placement of norms."""
    network, row = _stock(host), model_types()[host]
    sites = locate(network, row, 1).items()
    linears = [(key.role, s.in_features, s.out_features, _has_bias(network, s.path)) for key, s in sites]
    return (*linears, row.placement(network.config))


def _has_bias(network, path):
    return network.get_submodule(path).bias is not None


DISTINCT = {_seen_by_adapters(host): host for host in reversed(HOSTS)}.values()
"""One host of each sort."""


def _everywhere():
    """Return all pairs; those of hosts that look alike to an adapter are slow, but for LoRA and shortcuts."""
    for method in MANNERS:
        for host in HOSTS:
            is_fast = host in DISTINCT or method in ("lora", "shortcut")
            yield pytest.param(method, host, marks=() if is_fast else pytest.mark.slow)


everywhere = pytest.mark.parametrize(("method", "host"), list(_everywhere()))


class Guests:
    """A tiny host of a `model_type` in float64 with one kind at every site, or at every head that has one."""

    def __init__(self, method, host="llama", *, seed=0, dropout=0.0):
        extra = KEYS.get(method, {})
        method, _, by_head = method.partition(" with ")[0].partition(" by ")
        self.method = method
        self.kind = kinds.load(kinds.ADAPTERS, method)
        row = model_types()[host]
        self.stock = _stock(host)
        self.network = copy.deepcopy(self.stock)
        size = dimensions(self.network.config)
        self.stream = Stream(self.network, row, size.layers) if self.kind.place == "stream" else None
        sites = locate_stream(self.stream) if self.stream else locate(self.network, row, size.layers)
        config = AdapterConfig(
            rank=3,
            alpha=6.0,
            dropout=dropout,
            adapter_name="default",
            disabled=False,
            method=method,
            extra=extra,
        )
        self.configs = dict.fromkeys(sites, config)
        if by_head:
            self.configs |= {key: _by_head(config, key, size) for key in sites if key.role in HEAD_ROLES}
        self.attachments = attach(self.network, sites, self.configs, seed, "plan", self.stream)
        self.sites = sites
        self.modules = nn.ModuleDict({str(key): a for key, a in self.attachments.items()}).double()

    def logits(self):
        return self.network(torch.arange(5, 17).view(2, 6)).logits

    def stock_logits(self):
        return self.stock(torch.arange(5, 17).view(2, 6)).logits

    def shake(self, seed=1):
        """Move what files carry away from its start, also what trained before and is frozen now."""
        draw, carried = torch.Generator().manual_seed(seed), self.modules.state_dict()
        with torch.no_grad():
            for name, parameter in self.modules.named_parameters():
                if name in carried:  # what is drawn again from a seed stays
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))

    def trained(self):
        return {name: p for name, p in self.modules.named_parameters() if p.requires_grad}

    def apart(self):
        """Let every site add its delta to the stock output, the plain way."""
        for attachment in self.attachments.values():
            attachment.fused_forward = None
            share_inputs({attachment.site.key: attachment}, SHARED_INPUT)


def _by_head(config, key, size):
    """Plan the heads of a projection with ranks 2, 1, 0, 2, 1, 0, ..."""
    count = size.heads if key.role == "q_proj" else size.key_value_heads
    return projection_config(
        [replace(config, rank=2 - n % 3, alpha=4.0 - n % 2, importance=0.5) for n in range(count)]
    )


def _x(attachment, *leading):
    draw = torch.Generator().manual_seed(5)
    return torch.randn(*leading, attachment.site.in_features, generator=draw, dtype=torch.float64)


@everywhere
def test_it_starts_as_no_change(method, host):
    """Its delta is zero, of the base output's shape and of the input's dtype."""
    guests = Guests(method, host)
    torch.testing.assert_close(guests.logits(), guests.stock_logits())
    for attachment in guests.attachments.values():
        for leading in ((), (4,), (2, 3)):
            x = _x(attachment, *leading)
            delta = attachment.adapter(x)
            assert not delta.any()
            assert delta.shape == (*leading, attachment.site.out_features)
            assert delta.dtype == x.dtype


@everywhere
def test_it_starts_as_no_change_to_the_bit_in_half_precision(method, host):
    guests = Guests(method, host)
    guests.stock = copy.deepcopy(guests.stock)
    for module in (guests.network, guests.stock, guests.modules):
        module.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(guests.logits(), guests.stock_logits())


@everywhere
def test_gradients_reach_everything_that_trains_once_it_left_its_start(method, host):
    guests = Guests(method, host)
    guests.shake()
    guests.logits().square().sum().backward()
    assert guests.trained()
    for name, parameter in guests.trained().items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert all(parameter.grad is None for parameter in guests.network.parameters())


@everywhere
def test_off_is_the_base_bit_for_bit(method, host):
    guests = Guests(method, host)
    guests.shake()
    on = guests.logits()
    assert not torch.allclose(on, guests.stock_logits())
    for attachment in guests.attachments.values():
        attachment.enabled = False
    assert torch.equal(guests.logits(), guests.stock_logits())
    assert list(guests.network.state_dict()) == list(guests.stock.state_dict())
    for attachment in guests.attachments.values():
        attachment.enabled = True
    assert torch.equal(guests.logits(), on)


@everywhere
def test_its_fused_forward_is_base_plus_delta(method, host):
    guests, values = Guests(method, host), []
    if guests.kind.fused_forward is None:
        pytest.skip(f"{method} has no fused forward")
    guests.shake()
    for prepare in (lambda: None, guests.apart):
        prepare()
        output = guests.logits()
        values.append([output, *torch.autograd.grad(output.square().sum(), list(guests.trained().values()))])
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-11)


@of_every_kind
def test_its_state_dict_carries_all_of_it(method):
    one, two = Guests(method), Guests(method, seed=9)
    one.shake()
    two.shake(seed=3)
    assert not torch.allclose(one.logits(), two.logits())
    state = {name: value.contiguous() for name, value in one.modules.state_dict().items()}
    two.modules.load_state_dict(load(save(state)))
    assert torch.equal(one.logits(), two.logits())


@of_every_kind
def test_export_and_load_carry_the_effect(method):
    one, two = Guests(method), Guests(method, seed=9)
    if one.kind.export is None or one.kind.load is None:
        pytest.skip(f"{method} has no form that PEFT reads")
    one.shake()
    for key, attachment in one.attachments.items():
        a, b, scale = one.kind.export(attachment.adapter)
        x = _x(attachment, 4)
        torch.testing.assert_close(attachment.adapter(x), scale * (x @ a.t()) @ b.t())
        one.kind.load(two.attachments[key].adapter, a / 2, b * 2, scale)
    torch.testing.assert_close(one.logits(), two.logits())


@of_every_kind
def test_its_files_carry_the_effect(method, tmp_path):
    guests = Guests(method)
    guests.shake()
    for number, attachment in enumerate(guests.attachments.values()):
        attachment.strength = 0.5 if number % 2 else 1.0
    next(iter(guests.attachments.values())).enabled = False
    expected, methods = guests.logits(), dict.fromkeys(guests.attachments, guests.method)
    write(
        tmp_path,
        collect(guests.network, guests.attachments, methods, (), {}),
        task_type="SEQ_CLS",
        base="base",
        dropout=0.0,
    )
    for attachment in guests.attachments.values():
        attachment.enabled = False
    fresh = attach_peft(guests.network, guests.sites, read(tmp_path), guests.stream)
    assert len(fresh) == len(guests.attachments) - 1
    for attachment in fresh.values():
        attachment.double()
    torch.testing.assert_close(guests.logits(), expected, rtol=1e-5, atol=1e-6)  # loaded into float32


@of_every_kind
def test_merging_agrees_with_the_forward_pass_or_is_refused(method):
    guests = Guests(method)
    guests.shake()
    for attachment in guests.attachments.values():
        attachment.strength = 0.5
        x, delta = _x(attachment, 4), attachment.adapter.merged_delta()
        if delta is not None:
            torch.testing.assert_close(attachment.adapter(x), x @ delta.t())
    before = guests.logits()
    for attachment in guests.attachments.values():
        if attachment.adapter.merged_delta() is None:
            with pytest.raises(ValueError, match="cannot be merged"):
                attachment.merge()
        else:
            attachment.merge()
    torch.testing.assert_close(guests.logits(), before)
    for attachment in guests.attachments.values():
        attachment.unmerge()
    torch.testing.assert_close(guests.logits(), before)


@of_every_kind
def test_it_names_its_tensors_and_its_rank(method):
    guests = Guests(method)
    for key, attachment in guests.attachments.items():
        adapter = attachment.adapter
        assert adapter.rank == guests.configs[key].rank
        owned = {parameter.untyped_storage().data_ptr() for parameter in adapter.parameters()}
        assert {factor.untyped_storage().data_ptr() for factor in adapter.factors().values()} <= owned


@of_every_kind
def test_what_it_declares_zero_is_zero_and_what_it_declares_a_router_is_a_parameter(method):
    for attachment in Guests(method).attachments.values():
        adapter, factors = attachment.adapter, attachment.adapter.factors()
        zeros = adapter.zero_initialised()
        assert zeros
        assert not any(factors[name].any() for name in zeros)
        names = {name.partition(".")[0] for name, _ in adapter.named_parameters()}
        assert (adapter.router_parameters == ("router",)) >= ("router" in names)
        with torch.no_grad():
            for name in zeros:
                factors[name].fill_(0.1)
        assert adapter(_x(attachment, 4)).any()


@of_every_kind
def test_its_start_depends_on_the_seed_alone(method):
    state = torch.get_rng_state()
    one, two = Guests(method), Guests(method)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(one.modules.state_dict(), two.modules.state_dict(), rtol=0, atol=0)
    other = Guests(method, seed=1).modules.state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in one.modules.state_dict().items())


@of_every_kind
def test_dropout_belongs_to_training(method):
    guests = Guests(method, dropout=0.5)
    guests.shake()
    assert torch.equal(guests.logits(), guests.logits())
    guests.network.train()  # this host draws no noise of its own
    stock = copy.deepcopy(guests.stock).train()
    assert torch.equal(stock(torch.arange(5, 17).view(2, 6)).logits, guests.stock_logits())
    assert not torch.equal(guests.logits(), guests.logits())


@pytest.mark.parametrize(("method", "host"), [(method, host) for method in BY_HEAD for host in HOSTS])
def test_a_heads_delta_reaches_that_head_alone(method, host):
    guests, seen = Guests(method, host), []
    size = dimensions(guests.network.config)
    value = guests.attachments[SiteKey(0, "v_proj")]
    output = guests.network.get_submodule(guests.attachments[SiteKey(0, "o_proj")].site.path)
    output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    guests.logits()
    with torch.no_grad():
        value.adapter.B[0].fill_(1.0)  # the first rank belongs to head 0
    guests.logits()
    heads = (seen[1] - seen[0]).unflatten(-1, (size.heads, -1))
    changed = [number for number in range(size.heads) if heads[..., number, :].any()]
    assert changed == list(range(size.heads // size.key_value_heads))
