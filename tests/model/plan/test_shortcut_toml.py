"""Shortcut plans: read without a model, resolved against one."""

import re
from pathlib import Path

import pytest

from configs.runtime.faults import InputFault
from model.network.family import Dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.lora_toml import read_plan
from model.plan.shortcut_toml import read_shortcuts, resolve_shortcuts
from model.site import EARLIER_NAMES, SHORTCUT_ROLES, SiteKey

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "shortcut").glob("*.toml"))
SIZE = Dimensions(layers=3, heads=4, key_value_heads=2)
BODY = 'shortcut_alpha = 16\nproj_dropout = 0.1\nprojector_name = "a"\ndisable_projector = false\n'
DEFAULT = f"[default]\nr = 8\n{BODY}"
LAYERED = f'granularity = "layer"\n{DEFAULT}'


@pytest.fixture
def read(tmp_path):
    def make(text):
        path = tmp_path / "shortcuts.toml"
        path.write_text(text)
        return read_shortcuts(path)

    return make


def table(name, rank, body=BODY):
    return f"[{name}]\nr = {rank}\n{body}"


def ranks(plan):
    return {str(key): config.rank for key, config in resolve_shortcuts(plan, SIZE).sites.items()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_plan_binds(path):
    plan = read_shortcuts(path)
    assert not plan.notes
    assert resolve_shortcuts(plan, SIZE).sites
    assert path.read_text().startswith("# ")
    assert f"configs/shortcut/{path.name}" in path.read_text()


def test_shipped_plans_are_of_both_granularities():
    assert {read_shortcuts(path).granularity for path in SHIPPED} == {"network", "layer"}


def test_every_layer_has_four_sites_but_the_first(read):
    found = resolve_shortcuts(read(DEFAULT), SIZE)
    assert len(found.sites) == 4 * SIZE.layers - 1
    assert SiteKey(0, "shortcut2") not in found.sites
    assert list(found.sites) == sorted(found.sites)
    assert [key.role for key in found.sites] == [*SHORTCUT_ROLES[:3], *SHORTCUT_ROLES * 2]


def test_a_configuration_holds_the_values_of_its_table(read):
    body = BODY.replace("false", "true") + "importance_beta = 0.5\n"
    plan = read(DEFAULT + table("all_layers.residual1", 2, body))
    assert plan.default == AdapterConfig(8, 16.0, 0.1, "a", False, method="shortcut")
    assert plan.tables == {
        "all_layers.residual1": AdapterConfig(2, 16.0, 0.1, "a", True, 0.5, method="shortcut")
    }


@pytest.mark.parametrize("name", ["residual_1", "residual_2", "shortcut_sa", "shortcut_ffn"])
def test_roles_and_module_names_mean_the_same(read, name):
    role = EARLIER_NAMES[name]
    plans = [read(LAYERED + table(f"model_layer_1.{word}", 2)) for word in (role, name)]
    assert plans[0] == plans[1]
    assert ranks(plans[1])[f"layer_1/{role}"] == 2


def test_layer_granularity(read):
    found = ranks(
        read(LAYERED + table("model_layer_2.shortcut_ffn", 3) + table("model_layer_0.residual_2", 0))
    )
    assert found["layer_2/shortcut2"] == 3
    assert "layer_0/residual2" not in found
    assert set(found.values()) == {3, 8}


def test_tables_of_another_granularity_are_noted(read):
    plan = read(DEFAULT + table("model_layer_0.residual_1", 2))
    expected = "granularity is network; tables of another one are ignored: [model_layer_0.residual_1]"
    assert plan.notes == (f"{plan.path}: {expected}",)


FAULTS = [
    ('granularity = "head"\n' + DEFAULT, "granularity: no granularity 'head', one of layer, network"),
    (DEFAULT.replace("r = 8", 'r = "8"'), '[default] r: must be a whole number of at least 0, got "8"'),
    (DEFAULT + table("all_layers.q_proj", 2), "[all_layers.q_proj]: no role 'q_proj', one of residual1,"),
    (DEFAULT + table("all_layers.shortcut_fn", 2), "did you mean 'shortcut_ffn'?"),
    (DEFAULT + table("headwise_default.residual1", 2), "[headwise_default]: unknown table"),
    (DEFAULT + 'method = "lora"\n', "[default] method: unknown key"),
    ('method = "lora"\n' + DEFAULT, "method: unknown key"),
    (DEFAULT + "importance_bet = 1\n", "unknown key; did you mean 'importance_beta'?"),
    (DEFAULT.replace("proj_dropout", "lora_dropout"), "[default] proj_dropout: required"),
    (table("all_layers.residual1", 2), "[default]: required"),
    (DEFAULT.replace("0.1", "1"), "[default] proj_dropout: must be"),
    (DEFAULT.replace("= 16", "= 0"), "[default] shortcut_alpha: must be"),
    (
        DEFAULT + table("all_layers.residual1", 2) + table("all_layers.residual_1", 2),
        "[all_layers.residual_1]: given twice, as it is an alias of [all_layers.residual1]",
    ),
    (DEFAULT + table("all_layers.residual1.head_0", 2), "[all_layers.residual1.head_0]: unknown table"),
]


@pytest.mark.parametrize(("text", "words"), FAULTS)
def test_a_wrong_form_is_refused(read, text, words):
    with pytest.raises(InputFault, match=re.escape(words)):
        read(text)


def test_all_faults_are_reported_together(read):
    with pytest.raises(InputFault) as refused:
        read(DEFAULT.replace("r = 8", "r = -1").replace("0.1", "2") + table("all_layers.residual3", 2))
    assert len(refused.value.lines) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            table("model_layer_3.residual1", 2),
            "[model_layer_3.residual1]: no layer 3, the model has layers 0 to 2",
        ),
        (table("model_layer_0.shortcut_ffn", 2), "[model_layer_0.shortcut2]: layer 0 has no shortcut2"),
    ],
)
def test_a_site_outside_the_model_is_refused(read, text, words):
    with pytest.raises(InputFault, match=re.escape(words)):
        resolve_shortcuts(read(LAYERED + text), SIZE)


def test_layer_0_may_have_a_table_that_disables_shortcut2(read):
    assert "layer_0/shortcut2" not in ranks(read(LAYERED + table("model_layer_0.shortcut2", 0)))


@pytest.mark.parametrize(
    "change", [("r = 8", "r = 0"), ("false", "true"), ('"a"', '"a"\nimportance_beta = 0')]
)
def test_a_plan_that_turns_on_nothing_is_refused(read, change):
    with pytest.raises(InputFault, match="turns on no shortcut: .* r = 0 or importance_beta = 0"):
        resolve_shortcuts(read(DEFAULT.replace(*change)), SIZE)


def test_a_missing_file_names_the_flag(tmp_path):
    with pytest.raises(InputFault, match=r"^--shortcut-config: cannot read"):
        read_shortcuts(tmp_path / "none.toml")


def test_the_two_kinds_of_toml_are_distinguished(tmp_path):
    lora, shortcut = tmp_path / "lora.toml", tmp_path / "shortcut.toml"
    lora.write_text("[default]\nr = 8\nlora_alpha = 16\n")
    shortcut.write_text("[default]\nr = 8\nshortcut_alpha = 16\n")
    for read, path, flags in (
        (read_shortcuts, lora, ("--shortcut-config", "--lora-config")),
        (read_plan, shortcut, ("--lora-config", "--shortcut-config")),
    ):
        with pytest.raises(InputFault) as refused:
            read(path)
        (line,) = refused.value.lines
        assert line.startswith(f"{flags[0]}: {path} is a ")
        assert line.endswith(f"give it as {flags[1]}")
