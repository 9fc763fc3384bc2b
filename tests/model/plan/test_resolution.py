"""LoRA plans are resolved against a model: which table counts for a site, and which faults that shows."""

import re

import pytest

from configs.runtime.faults import InputFault
from model.plan.resolution import resolve
from model.site import HEAD_ROLES, LINEAR_ROLES, SiteKey
from tests.support.plans import BODY, DEFAULT, NO_GATE, SIZE, table


def ranks(resolution, layer):
    return {key.role: config.rank for key, config in resolution.sites.items() if key.layer == layer}


def head_ranks(resolution, layer):
    sites = {key.role: config for key, config in resolution.sites.items() if key.layer == layer}
    return {role: [head.rank for head in sites[role].heads] for role in HEAD_ROLES}


def test_network_granularity(read):
    plan = read(DEFAULT + table("all_layers.q_proj", 4) + table("all_layers.w2", 0))
    assert plan.granularity == "network"
    resolution = resolve(plan, SIZE, LINEAR_ROLES)
    expected = {"q_proj": 4, "k_proj": 8, "v_proj": 8, "o_proj": 8, "w1": 8, "gate": 8}
    assert ranks(resolution, 0) == ranks(resolution, 1) == expected
    assert list(resolution.sites) == sorted(resolution.sites)


def test_layer_granularity(read):
    plan = read('granularity = "layer"\n' + DEFAULT + table("model_layer_1.q_proj", 4))
    resolution = resolve(plan, SIZE, NO_GATE)
    assert (ranks(resolution, 0)["q_proj"], ranks(resolution, 1)["q_proj"]) == (8, 4)


def test_head_granularity_takes_the_most_specific_table(read):
    heads = "".join(table(f"headwise_default.q_proj.head_{head}", 4) for head in range(4))
    own = "".join(table(f"model_layer_1.q_proj.head_{head}", 2) for head in range(4))
    others = table("headwise_default.w1", 3) + table("model_layer_0.w1", 1)
    plan = read('granularity = "head"\n' + DEFAULT + heads + own + others)
    resolution = resolve(plan, SIZE, NO_GATE)
    assert (ranks(resolution, 0)["q_proj"], ranks(resolution, 1)["q_proj"]) == (4 * 4, 4 * 2)
    assert (ranks(resolution, 0)["w1"], ranks(resolution, 1)["w1"]) == (1, 3)
    assert ranks(resolution, 0)["k_proj"] == 2 * 8


def test_heads_of_one_projection_have_configurations_of_their_own(read):
    own = table("model_layer_0.q_proj.head_1", 4) + table("headwise_default.q_proj.head_3", 0)
    plan = read('granularity = "head"\n' + DEFAULT + own + table("model_layer_1.k_proj.head_0", 0))
    resolution = resolve(plan, SIZE, NO_GATE)
    assert head_ranks(resolution, 0) == {"q_proj": [8, 4, 8, 0], "k_proj": [8, 8], "v_proj": [8, 8]}
    assert head_ranks(resolution, 1) == {"q_proj": [8, 8, 8, 0], "k_proj": [0, 8], "v_proj": [8, 8]}
    assert not resolution.sites[SiteKey(0, "o_proj")].heads


@pytest.mark.parametrize("granularity", ["network", "layer"])
def test_other_granularities_plan_whole_projections(read, granularity):
    sites = resolve(read(f'granularity = "{granularity}"\n{DEFAULT}'), SIZE, NO_GATE).sites
    assert not any(config.heads for config in sites.values())
    assert {config.rank for config in sites.values()} == {8}


def test_a_projection_without_ranks_is_no_site(read):
    heads = "".join(table(f"headwise_default.q_proj.head_{head}", 0) for head in range(4))
    assert (
        SiteKey(0, "q_proj")
        not in resolve(read('granularity = "head"\n' + DEFAULT + heads), SIZE, NO_GATE).sites
    )


@pytest.mark.parametrize("granularity", ["network", "layer", "head"])
def test_every_layer_has_every_role_of_the_family(read, granularity):
    resolution = resolve(read(f'granularity = "{granularity}"\n{DEFAULT}'), SIZE, NO_GATE)
    assert list(resolution.sites) == [SiteKey(layer, role) for layer in range(2) for role in NO_GATE]
    by_head = {key: len(config.heads) for key, config in resolution.sites.items() if config.heads}
    counts = dict(zip(HEAD_ROLES, (4, 2, 2))) if granularity == "head" else {}
    assert by_head == {SiteKey(layer, role): count for layer in range(2) for role, count in counts.items()}
    assert resolution.notes == (f"{read(DEFAULT).path}: the model has no gate; ignored",)
    assert not resolve(read(DEFAULT), SIZE, LINEAR_ROLES).notes


def test_disabled_sites_stay_and_sites_of_rank_zero_do_not(read):
    off = BODY.replace("false", "true")
    resolution = resolve(
        read(DEFAULT + table("all_layers.w1", 4, off) + table("all_layers.w2", 0)), SIZE, NO_GATE
    )
    config = resolution.sites[SiteKey(0, "w1")]
    assert config.disabled
    assert not config.is_on
    assert SiteKey(0, "w2") not in resolution.sites


OUTSIDE = [
    (
        "layer",
        table("model_layer_2.q_proj", 8),
        "[model_layer_2.q_proj]: no layer 2, the model has layers 0 to 1",
    ),
    ("head", table("headwise_default.q_proj.head_4", 8), "no head 4, this projection has heads 0 to 3"),
    ("head", table("model_layer_0.k_proj.head_2", 8), "no head 2, this projection has heads 0 to 1"),
    (
        "head",
        table("model_layer_0.q_proj.head_3", 4, BODY.replace("0.1", "0.2")),
        "[model_layer_0.q_proj.head_3] lora_dropout: head 3 of q_proj in layer 0 has 0.2, head 0",
    ),
    ("network", table("all_layers.gate", 8).join(["", ""]), "turns on no site"),
]


@pytest.mark.parametrize(("granularity", "text", "message"), OUTSIDE)
def test_a_plan_that_does_not_fit_is_refused(read, tmp_path, granularity, text, message):
    default = DEFAULT.replace("r = 8", "r = 0") if "no site" in message else DEFAULT
    plan = read(f'granularity = "{granularity}"\n{default}{text}')
    with pytest.raises(InputFault, match=re.escape(message)) as refusal:
        resolve(plan, SIZE, NO_GATE)
    assert all(line.startswith(f"{tmp_path / 'plan.toml'}: ") for line in refusal.value.lines)


def test_a_plan_with_everything_disabled_turns_on_no_site(read):
    with pytest.raises(InputFault, match="turns on no site"):
        resolve(read(DEFAULT.replace("false", "true")), SIZE, NO_GATE)
