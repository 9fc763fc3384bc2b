"""LoRA plans are read and checked without a model."""

from pathlib import Path

import pytest

from configs.runtime.faults import InputFault
from model.network.family import Dimensions
from model.plan.adapter_config import AdapterConfig
from model.plan.lora_toml import read_plan
from model.plan.resolution import resolve
from tests.support.plans import BODY, DEFAULT, NO_GATE, table

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "lora").glob("*.toml"))


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


def test_a_table_replaces_the_default_completely(read):
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
    (DEFAULT.replace("16", "0"), "[default] lora_alpha: must be a number in [1e-30, 1e+30], got 0"),
    (DEFAULT.replace("16", "nan"), "[default] lora_alpha: must be a number in [1e-30, 1e+30], got nan"),
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


@pytest.mark.parametrize(
    "line", ['modules_to_save = ["lm_head"]', 'granularity = "layer"', "lora_alpha = 1e308"]
)
def test_a_key_of_the_top_level_or_an_impossible_number_in_a_table_is_refused(tmp_path, line):
    text = DEFAULT.replace("lora_alpha = 16\n", "") + line + "\n"
    if "lora_alpha" not in line:
        text += "lora_alpha = 16\n"
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputFault) as refused:
        read_plan(tmp_path / "plan.toml")
    assert f"[default] {line.split()[0]}: " in str(refused.value)
