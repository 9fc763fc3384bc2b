"""Every family's table of paths matches the stock networks it describes."""

from collections import Counter

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime import kinds
from model.injection.attach import attach, locate
from model.network.family import dimensions, dimensions_from_json, families, model_types
from model.plan.adapter_config import AdapterConfig
from model.site import LINEAR_ROLES, SiteKey
from tests.support.tiny import tiny_config, tiny_network

_CLASSES = {
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "language_modeling": AutoModelForCausalLM,
}
_VARIANTS = {
    "opt": [{}, {"do_layer_norm_before": False, "word_embed_proj_dim": 16}],
    "deberta": [{}, {"share_att_key": False, "position_biased_input": True}],
}


def _variants(family):
    """Return every variant of every `model_type`, as overrides of the tiny configuration."""
    return [
        {"model_type": word, **v} for word in family.model_types for v in _VARIANTS.get(family.name, [{}])
    ]


_CASES = [
    pytest.param(family, objective, variant, id=f"{family.name}-{objective}-{number}")
    for family in families()
    for objective in family.heads
    for number, variant in enumerate(_variants(family))
]


def _network(family, objective, variant):
    return tiny_network(family, _CLASSES[objective], **variant)


def _keys(family, network):
    return [SiteKey(i, role) for i in range(dimensions(network.config).layers) for role in family.roles]


def _ids(network, length=7):
    return torch.arange(5, 5 + length).remainder(network.config.vocab_size - 5).add(5).unsqueeze(0)


def _runs(config, role):
    """Return how often a forward pass runs a role: shared keys project relative positions too."""
    return 2 if role in ("q_proj", "k_proj") and getattr(config, "share_att_key", False) else 1


def _positions_end(config):
    """Return whether positions are a table; rotary and relative ones only grow worse."""
    return not hasattr(config, "rope_parameters") and getattr(config, "position_biased_input", True)


def _expected_widths(config, role):
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or config.ffn_dim
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * dimensions(config).key_value_heads
    table = {"q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys)}
    table |= {"o_proj": (queries, width), "w1": (width, inner), "gate": (width, inner), "w2": (inner, width)}
    return table[role]


@pytest.mark.parametrize("name", kinds.names(kinds.FAMILIES))
def test_the_file_is_named_after_the_family(name):
    family = kinds.load(kinds.FAMILIES, name)
    assert family.name == name
    assert all(model_types()[word] is family for word in family.model_types)
    assert set(family.roles) <= set(LINEAR_ROLES)
    assert {"classification", "regression"} <= set(family.heads)


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_every_site_is_a_linear_of_the_right_widths(family, objective, variant):
    network = _network(family, objective, variant)
    for key in _keys(family, network):
        module = network.get_submodule(family.path(key))
        assert type(module) is nn.Linear
        assert (module.in_features, module.out_features) == _expected_widths(network.config, key.role)


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_every_site_is_hit_as_often_as_its_linear_runs(family, objective, variant):
    network, hits = _network(family, objective, variant), Counter()
    for key in _keys(family, network):
        module = network.get_submodule(family.path(key))
        module.register_forward_hook(lambda *_, key=key: hits.update([key]))
    network(_ids(network))
    assert hits == {key: _runs(network.config, key.role) for key in _keys(family, network)}


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_norms_are_where_the_layout_has_them(family, objective, variant):
    network, order = _network(family, objective, variant), []
    layer = network.get_submodule(family.layer.format(layer=1))
    marks = dict(zip(("attention_norm", "ffn_norm"), family.norms(network.config)))
    marks |= {role: family.roles[role] for role in ("q_proj", "o_proj", "w1", "w2")}
    for mark, path in marks.items():
        layer.get_submodule(path).register_forward_hook(lambda *_, mark=mark: order.append(mark))
    network(_ids(network))
    pre = ["attention_norm", "q_proj", "o_proj", "ffn_norm", "w1", "w2"]
    post = ["q_proj", "o_proj", "attention_norm", "w1", "w2", "ffn_norm"]
    # Linears of queries and keys may run once more, for relative positions.
    assert list(dict.fromkeys(order)) == (pre if family.placement(network.config) == "pre" else post)


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_heads_and_optional_modules_exist(family, objective, variant):
    network = _network(family, objective, variant)
    for name in family.heads[objective]:
        assert any(True for _ in network.get_submodule(name).parameters())
    if objective != "language_modeling":
        outside = network.base_model_prefix + "."
        heads = tuple(f"{name}." for name in family.heads[objective])
        names = [name for name, _ in network.named_parameters() if not name.startswith(outside)]
        assert names
        assert all(name.startswith(heads) for name in names)
        for name in family.optional:
            network.get_submodule(name)


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_positions_is_the_longest_input_that_runs(family, objective, variant):
    network = _network(family, objective, variant)
    longest = family.positions(network.config)
    with torch.no_grad():
        network(_ids(network, longest))
        if _positions_end(network.config):
            with pytest.raises((IndexError, RuntimeError)):
                network(_ids(network, longest + 1))


def test_every_variant_of_norm_placement_is_covered():
    seen = {(f.name, f.placement(tiny_config(f, **v))) for f in families() for v in _variants(f)}
    assert {("opt", "pre"), ("opt", "post"), ("llama", "pre"), ("bert", "post"), ("roberta", "post")} <= seen


def test_grouped_queries_are_counted_alike_with_and_without_the_library():
    config = tiny_config(model_types()["llama"])
    assert dimensions(config) == dimensions_from_json(config.to_dict())
    assert dimensions(config).key_value_heads == 2 < dimensions(config).heads
    assert dimensions_from_json({"model_type": "llama"}) is None


@pytest.mark.parametrize(("family", "objective", "variant"), _CASES)
def test_gradient_checkpointing_gives_equal_gradients(family, objective, variant):
    network = _network(family, objective, variant).requires_grad_(False)
    sites = locate(network, family, dimensions(network.config).layers)
    config = AdapterConfig(rank=2, alpha=4.0, dropout=0.1, adapter_name="default", disabled=False, init=False)
    attachments = attach(network, sites, dict.fromkeys(sites, config), 0, "here")
    adapters = nn.ModuleList(attachments.values())

    def gradients():
        adapters.zero_grad()
        torch.manual_seed(0)
        logits = network.train()(input_ids=_ids(network)).logits
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        return [parameter.grad.clone() for parameter in adapters.parameters()]

    plain = gradients()
    assert all(gradient.abs().max() > 0 for gradient in plain)
    network.gradient_checkpointing_enable({"use_reentrant": False})
    for found, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(found, expected)
