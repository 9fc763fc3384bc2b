"""Shortcuts edit the residual stream of stock layers by the formula, and leave no trace when off."""

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime.faults import InputFault
from model.injection.attach import attach, locate_stream
from model.injection.residual_stream import Stream
from model.injection.stream_sums import StreamSums
from model.network.family import dimensions, model_types
from model.plan.adapter_config import AdapterConfig
from model.site import SHORTCUT_ROLES, SiteKey
from model.training.compilation import compiled
from tests.support.tiny import tiny_network

HOSTS = [(word, {}) for word in sorted(model_types())]
HOSTS += [("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16})]
every_host = pytest.mark.parametrize(
    ("word", "variant"), HOSTS, ids=[f"{word}{'-post' * bool(variant)}" for word, variant in HOSTS]
)
DECODERS = sorted(w for w, family in model_types().items() if "language_modeling" in family.heads)
IDS = torch.arange(5, 17).view(2, 6)


class Host:
    """A tiny network in float64 with shortcuts at every place, or at the roles named, B not zero."""

    def __init__(
        self, word="llama", *, norm="exact", roles=SHORTCUT_ROLES, zero=False, causal=False, **variant
    ):
        self.family = model_types()[word]
        self.variant = {"model_type": word, **variant}
        auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
        self.network = tiny_network(self.family, auto, **self.variant).requires_grad_(False).double()
        self.stock = copy.deepcopy(self.network)
        self.stream = Stream(self.network, self.family, dimensions(self.network.config).layers, norm)
        self.sites = {key: s for key, s in locate_stream(self.stream).items() if key.role in roles}
        config = AdapterConfig(2, 3.0, 0.0, "default", False, method="shortcut")
        configs = dict.fromkeys(self.sites, config)
        self.attachments = attach(self.network, self.sites, configs, 0, "plan", self.stream)
        self.modules = nn.ModuleDict({str(key): one for key, one in self.attachments.items()}).double()
        self.stream.wire(self.sites)
        draw = torch.Generator().manual_seed(1)
        for one in self.attachments.values():
            with torch.no_grad():
                value = 0.3 * torch.randn(one.adapter.B.shape, generator=draw)
                one.adapter.B.copy_(torch.zeros(()) if zero else value)

    def logits(self, ids=IDS):
        return self.network(ids).logits

    def gradients(self, ids=IDS):
        self.logits(ids).square().sum().backward()
        return self.collected()

    def collected(self):
        found = {name: p.grad for name, p in self.modules.named_parameters()}
        self.modules.zero_grad()
        return found

    def layers(self, network):
        return [network.get_submodule(layer.path) for layer in self.stream.layers]

    def edited(self):
        return [name for name, module in self.network.named_modules() if "forward" in module.__dict__]


def _attention(layer):
    """Return the module that computes attention, its output still without the last norm and sum."""
    return layer.self_attn if hasattr(layer, "self_attn") else layer.attention.self


def _attended(layer, call, h):
    """Return attention's part of the sum, from a recorded call with other hidden states."""
    args, kwargs = call
    if "hidden_states" in kwargs:
        kwargs = {**kwargs, "hidden_states": h}
    else:
        args = (h, *args[1:])
    output = _attention(layer)(*args, **kwargs)[0]
    if hasattr(layer, "pre_feedforward_layernorm"):
        return layer.post_attention_layernorm(output)
    return output if hasattr(layer, "self_attn") else layer.attention.output.dense(output)


def _fed(layer, h):
    """Return the feed-forward part of the sum."""
    if hasattr(layer, "fc1"):
        return layer.fc2(layer.activation_fn(layer.fc1(h)))
    if hasattr(layer, "mlp"):
        output = layer.mlp(h)
        return (
            layer.post_feedforward_layernorm(output)
            if hasattr(layer, "pre_feedforward_layernorm")
            else output
        )
    return layer.output.dense(layer.intermediate(h))


def _recorded(host):
    """Return the first layer's input and every attention's call in the stock network."""
    layers, calls, inputs, handles = host.layers(host.stock), [], [], []
    handles.append(layers[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
    for layer in layers:
        hook = lambda _, args, kwargs: calls.append((args, kwargs))  # noqa: E731
        handles.append(_attention(layer).register_forward_pre_hook(hook, with_kwargs=True))
    host.stock(IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    return inputs[0], calls


def _by_formula(host, norm):
    """Compute the last layer's output from the formula, with the stock network's parts."""
    config = host.network.config
    is_pre, u = host.family.placement(config) == "pre", None
    x, calls = _recorded(host)

    def low(number, role, h):
        factors = host.attachments[SiteKey(number, role)].adapter.factors()
        return 3.0 / 2 * (h @ factors["A"].t()) @ factors["B"].t()

    for number, (layer, call) in enumerate(zip(host.layers(host.stock), calls)):
        norm1, norm2 = (layer.get_submodule(path) for path in host.family.norms(config))
        after2, after1 = norm1, norm2
        if hasattr(layer, "mlp"):
            after2, after1 = layer.post_attention_layernorm, layer.input_layernorm
        cut = low(number, "shortcut2", u) if number else 0
        u = x + low(number, "residual1", x) + _attended(layer, call, norm1(x) if is_pre else x)
        u = u + cut if norm == "exact" else u
        u = u if is_pre else norm1(u)
        u = after2(u + cut) if norm == "renorm" and number else u
        v = u + low(number, "residual2", u) + _fed(layer, norm2(u) if is_pre else u)
        v = v + low(number, "shortcut1", x) if norm == "exact" else v
        v = v if is_pre else norm2(v)
        x = after1(v + low(number, "shortcut1", x)) if norm == "renorm" else v
    return x


@every_host
@pytest.mark.parametrize("norm", ["exact", "renorm"])
def test_it_computes_the_formula(word, variant, norm):
    host, found = Host(word, norm=norm, **variant), []
    host.layers(host.network)[-1].register_forward_hook(
        lambda *args: found.append(args[-1][0] if isinstance(args[-1], tuple) else args[-1])
    )
    host.network(IDS, use_cache=False)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if hasattr(host.layers(host.stock)[0], "mlp") else {}
    torch.testing.assert_close(found[0], _by_formula(host, norm), **tolerance)


@every_host
def test_with_zero_b_it_is_the_base_bit_for_bit(word, variant):
    host = Host(word, zero=True, **variant)
    assert host.edited()
    assert torch.equal(host.logits(), host.stock(IDS).logits)


@every_host
def test_off_is_stock_and_costs_nothing(word, variant):
    host = Host(word, **variant)
    on, keys = host.logits(), list(host.stock.state_dict())
    assert not torch.allclose(on, host.stock(IDS).logits)
    assert list(host.network.state_dict()) == keys
    for number, one in enumerate(host.attachments.values()):
        one.enabled, one.strength = bool(number % 2), 0.0 if number % 2 else 1.0
        assert not one.active
    assert host.edited() == []
    assert torch.equal(host.logits(), host.stock(IDS).logits)
    for one in host.attachments.values():
        one.enabled, one.strength = True, 1.0
    assert torch.equal(host.logits(), on)


@pytest.mark.parametrize("role", SHORTCUT_ROLES)
def test_only_layers_that_take_part_are_edited(role):
    host = Host(roles=(role,))
    for key, one in host.attachments.items():
        one.enabled = key.layer == 1
    layers = {"model.layers.0", "model.layers.1"} if role == "shortcut2" else {"model.layers.1"}
    assert {".".join(name.split(".")[:3]) for name in host.edited()} == layers


@pytest.mark.parametrize("role", SHORTCUT_ROLES)
@pytest.mark.parametrize("word", ["llama", "bert"])
def test_strength_multiplies_the_term_alone(role, word):
    host, half = Host(word, roles=(role,)), Host(word, roles=(role,))
    for one, other in zip(host.attachments.values(), half.attachments.values()):
        one.strength = 0.25
        with torch.no_grad():
            other.adapter.B.mul_(0.25)
    torch.testing.assert_close(host.logits(), half.logits())


@every_host
def test_recomputed_layers_give_the_same_gradients(word, variant):
    """Non-reentrant checkpointing, with two forward passes before the backward ones."""
    host = Host(word, **variant)
    for module in host.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    host.network.train()
    other = IDS.flip(1)
    expected = [host.gradients(ids) for ids in (IDS, other)]
    host.network.gradient_checkpointing_enable({"use_reentrant": False})
    losses = [host.logits(ids).square().sum() for ids in (IDS, other)]
    found = []
    for loss in losses:
        loss.backward()
        found.append(host.collected())
    for ours, theirs in zip(found, expected):
        assert all(gradient.any() for gradient in ours.values())
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], msg=name)
    del losses, loss
    gc.collect()
    assert not host.stream.sums._sums


def test_nothing_of_a_batch_outlives_it():
    host = Host("bert")
    loss = host.logits().sum()
    assert len(host.stream.sums._sums) == 2
    loss.backward()
    del loss
    gc.collect()
    assert not host.stream.sums._sums
    assert all(layer._u is None for layer in host.stream.layers)


def test_a_forward_pass_that_broke_leaves_nothing_for_the_next():
    host = Host()
    expected = host.logits()
    layer = host.layers(host.network)[1]
    handle = layer.mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        host.logits(IDS.flip(1))
    handle.remove()
    assert torch.equal(host.logits(), expected)


def test_a_sum_is_not_handed_to_an_input_it_does_not_belong_to():
    sums, x = StreamSums(), torch.ones(2)
    sums.put(0, torch.zeros(2))
    sums.bind(2, x)
    with pytest.raises(RuntimeError, match="without the sum"):
        sums.get(x)
    sums.bind(1, x)
    with pytest.raises(RuntimeError, match="without the sum"):
        sums.get(x)


@every_host
def test_it_runs_under_autocast_and_on_a_bfloat16_base(word, variant):
    expected = Host(word, **variant).logits()
    mixed, stored = Host(word, **variant), Host(word, **variant)
    mixed.network.float(), mixed.modules.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed.gradients()
        close = mixed.logits()
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found.values())
    stored.network.to(torch.bfloat16), stored.modules.float()
    for logits in (close, stored.logits()):
        torch.testing.assert_close(logits.double(), expected, rtol=0.2, atol=0.2)
    assert all(p.dtype == torch.float32 for p in stored.modules.parameters())


@pytest.mark.parametrize("word", DECODERS)
def test_generation_with_a_cache_is_generation_without(word):
    host = Host(word, causal=True)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    mask = torch.ones_like(IDS)
    with_cache, without = (
        host.network.generate(IDS, attention_mask=mask, use_cache=cache, **options) for cache in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert not torch.equal(with_cache, host.stock.generate(IDS, attention_mask=mask, **options))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["exact", "renorm"])
@pytest.mark.parametrize("word", ["opt", "bert"])
def test_compiled_layers_compute_the_same(word, norm):
    host = Host(word, norm=norm)
    expected, logits = host.gradients(), host.logits(IDS.flip(1))
    with compiled(host.layers(host.network), host.attachments.values()):
        found = host.gradients()
        torch.testing.assert_close(host.logits(IDS.flip(1)), logits)
    torch.testing.assert_close(found, expected)


def test_inference_mode():
    host = Host("opt")
    with torch.inference_mode():
        torch.testing.assert_close(host.logits(), Host("opt").logits().detach())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("word", ["gemma2", "roberta"])
def test_copies_are_independent(word, copied):
    host = Host(word)
    expected = host.logits()
    network, modules = copied((host.network, host.modules))
    assert torch.equal(network(IDS).logits, expected)
    for one in host.attachments.values():
        one.enabled = False
    assert torch.equal(network(IDS).logits, expected)
    for one in modules.values():
        one.detach()
    assert torch.equal(network(IDS).logits, host.stock(IDS).logits)


def test_the_norm_of_the_published_wiring_stays_while_a_shortcut_is_off():
    host = Host("opt", norm="renorm")
    before = host.logits()
    for key, one in host.attachments.items():
        one.enabled = key.role.startswith("residual")
    zero = Host("opt", norm="renorm")
    with torch.no_grad():
        for key, one in zero.attachments.items():
            one.adapter.B.mul_(key.role.startswith("residual"))
    torch.testing.assert_close(host.logits(), zero.logits())
    assert not torch.allclose(host.logits(), before)
    assert not torch.allclose(host.logits(), Host("opt", roles=("residual1", "residual2")).logits())


def test_removing_a_replaced_one_leaves_the_other_in_place():
    host = Host(roles=("residual1",))
    expected = host.logits()
    again = Host(roles=("residual1",))
    first = dict(again.attachments)
    for one in first.values():
        one.enabled = False
    config = AdapterConfig(2, 3.0, 0.0, "default", False, method="shortcut")
    configs = dict.fromkeys(again.sites, config)
    fresh = attach(again.network, again.sites, configs, 0, "plan", again.stream)
    for key, one in fresh.items():
        one.double().load_state_dict(first[key].state_dict())
        first[key].enabled = False
    assert torch.equal(again.logits(), expected)
    for key, one in fresh.items():
        one.detach()
        first[key].enabled = True
    assert torch.equal(again.logits(), expected)


def test_it_cannot_be_merged():
    one = next(iter(Host().attachments.values()))
    with pytest.raises(ValueError, match="layer_0/residual1: there is no linear here, .* cannot be merged"):
        one.merge()
    assert not one.merged


@pytest.mark.parametrize(("word", "key"), [("opt", "layerdrop"), ("bert", "chunk_size_feed_forward")])
def test_a_network_without_such_sums_is_refused(word, key):
    with pytest.raises(InputFault, match=rf"^config\.json: {key}: must be 0 for shortcuts: "):
        Host(word, **{key: 1})
