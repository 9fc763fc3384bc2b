"""LoRA plans: read without a model, resolved against one, written and read again."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.network.family import Dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import apart, projection
from model.plan.lora_toml import read_plan, resolve
from model.plan.toml_writer import plan_text
from model.site import HEAD_ROLES, LINEAR_ROLES, SiteKey

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "lora").glob("*.toml"))
METHODS = ("aflora", "hydra", "lora", "lora_moe", "lora_split", "shortcut", "vera")
NO_GATE = tuple(role for role in LINEAR_ROLES if role != "gate")
SIZE = Dimensions(layers=2, heads=4, key_value_heads=2)
BODY = 'lora_alpha = 16\nlora_dropout = 0.1\nadapter_name = "a"\ndisable_adapter = false\n'
DEFAULT = f"[default]\nr = 8\n{BODY}"


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    monkeypatch.setattr(kinds, "names", {kinds.ADAPTERS: METHODS}.__getitem__)


@pytest.fixture
def read(tmp_path):
    def make(text):
        path = tmp_path / "plan.toml"
        path.write_text(text)
        return read_plan(path)

    return make


def table(name, rank, body=BODY):
    return f"[{name}]\nr = {rank}\n{body}"


def ranks(resolution, layer):
    return {key.role: config.rank for key, config in resolution.sites.items() if key.layer == layer}


def head_ranks(resolution, layer):
    sites = {key.role: config for key, config in resolution.sites.items() if key.layer == layer}
    return {role: [head.rank for head in sites[role].heads] for role in HEAD_ROLES}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_plan_binds(path):
    plan = read_plan(path)
    assert not plan.notes
    resolution = resolve(plan, Dimensions(12, 12, 12), NO_GATE)
    assert resolution.sites
    assert path.read_text().startswith("# ")
    assert f"configs/lora/{path.name}" in path.read_text()


def test_shipped_plans_exist():
    assert {path.stem for path in SHIPPED} >= {
        "lora_networkwise",
        "lora_all_linear",
        "lora_layerwise",
        "lora_headwise",
    }


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


def test_heads_of_one_projection_have_entries_of_their_own(read):
    own = table("model_layer_0.q_proj.head_1", 4) + table("headwise_default.q_proj.head_3", 0)
    plan = read('granularity = "head"\n' + DEFAULT + own + table("model_layer_1.k_proj.head_0", 0))
    resolution = resolve(plan, SIZE, NO_GATE)
    assert head_ranks(resolution, 0) == {"q_proj": [8, 4, 8, 0], "k_proj": [8, 8], "v_proj": [8, 8]}
    assert head_ranks(resolution, 1) == {"q_proj": [8, 8, 8, 0], "k_proj": [0, 8], "v_proj": [8, 8]}
    assert [config.rank for config in resolution.layers[0]["q_proj"]] == [8, 4, 8, 0]
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
def test_every_layer_holds_every_role(read, granularity):
    resolution = resolve(read(f'granularity = "{granularity}"\n{DEFAULT}'), SIZE, NO_GATE)
    assert len(resolution.layers) == 2
    for layer in resolution.layers:
        assert tuple(layer) == LINEAR_ROLES
        assert [len(layer[role]) for role in ("q_proj", "k_proj", "v_proj")] == [4, 2, 2]
        assert all(isinstance(layer[role], AdapterConfig) for role in ("o_proj", "w1", "gate", "w2"))
    assert resolution.notes == (f"{read(DEFAULT).path}: the model has no gate; ignored",)
    assert not resolve(read(DEFAULT), SIZE, LINEAR_ROLES).notes


def test_an_entry_replaces_the_default_completely(read):
    body = (
        BODY.replace("0.1", "0.2")
        + "importance_alpha = 0.5\ninit_lora_weghts = false\nfan_in_fan_out = true\n"
    )
    plan = read(
        f"{DEFAULT}importance_alpha = 2\n" + table("all_layers.q_proj", 4, body) + table("all_layers.w1", 2)
    )
    assert plan.default.importance == 2.0
    assert plan.tables["all_layers.q_proj"] == AdapterConfig(4, 16.0, 0.2, "a", False, 0.5, False, True)
    assert plan.tables["all_layers.w1"] == AdapterConfig(2, 16.0, 0.1, "a", False)


def test_a_method_and_its_own_keys_are_kept(read):
    plan = read(
        'method = "hydra"\n' + DEFAULT + "lora_num = 3\n" + table("all_layers.w1", 2) + 'method = "lora"\n'
    )
    assert (plan.default.method, plan.default.extra) == ("hydra", {"lora_num": 3})
    assert (plan.tables["all_layers.w1"].method, plan.tables["all_layers.w1"].extra) == ("lora", {})


def test_disabled_sites_stay_and_sites_of_rank_zero_do_not(read):
    off = BODY.replace("false", "true")
    resolution = resolve(
        read(DEFAULT + table("all_layers.w1", 4, off) + table("all_layers.w2", 0)), SIZE, NO_GATE
    )
    config = resolution.sites[SiteKey(0, "w1")]
    assert config.disabled
    assert not config.is_on
    assert SiteKey(0, "w2") not in resolution.sites


def test_tables_of_another_granularity_are_noted(read):
    text = DEFAULT + table("model_layer_0.q_proj", 1) + table("model_layer_0.v_proj.head_0", 1)
    plan = read(text)
    assert not plan.tables
    assert len(plan.notes) == 1
    assert "[model_layer_0.q_proj], [model_layer_0.v_proj.head_0]" in plan.notes[0]
    assert list(read('granularity = "head"\n' + text).tables) == ["model_layer_0.v_proj.head_0"]
    assert list(read('granularity = "layer"\n' + text).tables) == ["model_layer_0.q_proj"]


REFUSED = [
    ("", "[default]: required"),
    ("[default]\n", "[default] r: required"),
    (table("default", 8, BODY.replace("lora_alpha = 16\n", "")), "[default] lora_alpha: required"),
    (DEFAULT + table("all_layers.kproj", 8), "[all_layers.kproj]: no role 'kproj', one of gate"),
    (DEFAULT + table("all_layers.kproj", 8), "did you mean 'k_proj'?"),
    (table("default", '"8"'), '[default] r: must be a whole number of at least 0, got "8"'),
    (table("default", -1), "[default] r: must be a whole number of at least 0, got -1"),
    (table("default", "1.0"), "[default] r: must be a whole number of at least 0, got 1.0"),
    (table("default", "true"), "[default] r: must be"),
    (DEFAULT.replace("16", "0"), "[default] lora_alpha: must be a finite number above 0, got 0"),
    (DEFAULT.replace("16", "nan"), "[default] lora_alpha: must be a finite number above 0, got nan"),
    (DEFAULT.replace("0.1", "1.0"), "[default] lora_dropout: must be a number in [0, 1), got 1.0"),
    (DEFAULT.replace("0.1", "-0.1"), "[default] lora_dropout: must be a number in [0, 1), got -0.1"),
    (DEFAULT.replace("false", '"no"'), '[default] disable_adapter: must be true or false, got "no"'),
    (DEFAULT + "importance_alhpa = 1.0\n", "importance_alhpa: unknown key; did you mean 'importance_alpha'?"),
    (DEFAULT + "init_lora_weghts = true\ninit_lora_weights = true\n", "init_lora_weghts: given twice"),
    (DEFAULT + 'method = "hydar"\n', "[default] method: no adapter method 'hydar', one of aflora, hydra"),
    ("method = 3\n" + DEFAULT, "method: must be a string"),
    (DEFAULT + 'method = "shortcut"\n', "no adapter method 'shortcut', one of aflora, hydra, lora"),
    ('granularity = "heads"\n' + DEFAULT, "granularity: no granularity 'heads', one of head, layer, network"),
    ("granularity = 3\n" + DEFAULT, "granularity: no granularity '3'"),
    ('granularty = "head"\n' + DEFAULT, "granularty: unknown key; did you mean 'granularity'?"),
    (DEFAULT + table("al_layers.q_proj", 8), "[al_layers]: unknown table; did you mean 'all_layers'?"),
    (DEFAULT + table("model_layer_01.q_proj", 8), "[model_layer_01]: unknown table"),
    (DEFAULT + table("all_layers.q_proj.head_0", 8), "[all_layers.q_proj.head_0]: unknown table"),
    (DEFAULT + table("model_layer_0.w1.head_0", 8), "[model_layer_0.w1.head_0]: unknown table"),
    (DEFAULT + table("model_layer_0.q_proj.haed_0", 8), "did you mean 'head_0'?"),
    (DEFAULT + table("headwise_default.q_proj", 8), "q_proj needs a table for each head"),
    (DEFAULT + "[default.q_proj]\nr = 8\n", "[default.q_proj]: unknown table"),
    (DEFAULT + "[all_layers]\nq_proj = 8\n", "all_layers.q_proj: must be a table"),
    ("all_layers = 3\n" + DEFAULT, "all_layers: must be a table"),
    ("r = 8\n" + DEFAULT, "r: unknown key"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_wrong_plan_is_refused(read, tmp_path, text, message):
    with pytest.raises(InputFault) as refusal:
        read(text)
    assert all(line.startswith(f"{tmp_path / 'plan.toml'}: ") for line in refusal.value.lines)
    assert any(message in line for line in refusal.value.lines)


def test_a_plan_that_is_no_toml_is_refused(read, tmp_path):
    with pytest.raises(InputFault, match=r"plan\.toml:2: "):
        read("[default]\nr 8\n")
    with pytest.raises(InputFault, match=r"--lora-config: cannot read"):
        read_plan(tmp_path / "none.toml")


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


ENTRIES = st.builds(
    AdapterConfig,
    rank=st.integers(1, 64),
    alpha=st.floats(1e-3, 1e3),
    dropout=st.floats(0, 1, exclude_max=True),
    adapter_name=st.sampled_from(["default", "a b"]),
    disabled=st.just(False),
    importance=st.floats(-2, 2).filter(bool),
    init=st.booleans(),
    fan_in_fan_out=st.booleans(),
    method=st.sampled_from(["lora", "hydra"]),
    extra=st.sampled_from([{}, {"lora_num": 3}]),
)
KEYS = st.builds(SiteKey, st.integers(0, 1), st.sampled_from(NO_GATE))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, ENTRIES, min_size=1))
def test_a_written_plan_reads_back(read, sites):
    plan = read(plan_text(sites))
    assert resolve(plan, SIZE, NO_GATE).sites == sites


def test_a_written_plan_turns_off_what_it_does_not_name(read):
    plan = read(plan_text({SiteKey(1, "w2"): AdapterConfig(4, 8.0, 0.0, "a", disabled=False)}, "a"))
    assert (plan.granularity, plan.default.rank, plan.default.disabled) == ("layer", 0, True)
    assert list(plan.tables) == ["model_layer_1.w2"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 1), st.lists(ENTRIES, min_size=4, max_size=4), min_size=1), st.booleans()
)
def test_a_written_plan_of_heads_reads_back(read, layers, disabled):
    shared = {"dropout": 0.5, "method": "lora", "extra": {}}
    sites = {SiteKey(1, "w1"): AdapterConfig(1, 1.0, 0.0, "a", disabled=False)}
    for layer, heads in layers.items():
        manners = [replace(head, **shared, disabled=n % 2 == 1 or disabled) for n, head in enumerate(heads)]
        sites[SiteKey(layer, "q_proj")] = projection(manners)
    again = resolve(read(plan_text(sites)), SIZE, NO_GATE).sites
    assert {key: (e.rank, e.is_on) for key, e in again.items()} == {
        key: (e.rank, e.is_on) for key, e in sites.items()
    }
    for key, config in sites.items():
        for one, other in zip(apart(config), apart(again[key]), strict=True):
            assert (one.rank, one.alpha, one.init) == (other.rank, other.alpha, other.init)
            assert one.importance == pytest.approx(other.importance)


def test_a_written_plan_is_of_one_granularity():
    whole, by_head = (AdapterConfig(2, 1.0, 0.0, "a", disabled=False) for _ in range(2))
    sites = {SiteKey(0, "q_proj"): whole, SiteKey(0, "k_proj"): projection([by_head])}
    with pytest.raises(ValueError, match="either projections by head or projections as a whole"):
        plan_text(sites)
