"""adapter_config.json is checked whole, and an adapter of another network is refused early."""

import json
import time

import peft
import pytest

from configs.runtime.faults import InputFault
from model.exchange.adapter_config import value_of
from tests.support.exported import load_adapter_of_peft, saved_by_peft
from tests.support.runs import launch
from tests.support.tiny import save_host


def _lora(directory, host, **changes):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    saved_by_peft(directory, host, "language_modeling", config)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return directory


@pytest.mark.parametrize(
    "pattern", [r"(\w+.?)+!", r"(a|[^b]|.)*!", "(.*)*.*.*.*.*.*.*.*!", r"(?:(?:a|.)+)+\d!"]
)
def test_a_pattern_that_backtracks_is_answered_in_time(pattern):
    name = ".".join(["model.layers.0.self_attn.q_proj"] * 4)
    begin = time.monotonic()
    try:
        assert value_of({"r": 2, "rank_pattern": {pattern: 4}}, "r", name, "here") == 2
    except InputFault as refusal:
        assert "takes too long to match" in str(refusal)
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"use_rslora": "yes"}, "use_rslora: must be true or false, got 'yes'"),
        ({"modules_to_save": 5}, "modules_to_save: must be a list of names, got 5"),
        ({"target_modules": 5}, "target_modules: must be a list of names or a pattern, got 5"),
        ({"task_type": "CAUSAL"}, "task_type: must be one of CAUSAL_LM"),
        ({"lora_alpa": 3}, "lora_alpa: unknown key; did you mean 'lora_alpha'?"),
        ({"target_modules": ["v_proj"]}, "target_modules: does not name model.layers.0.self_attn.q_proj"),
        ({"target_modules": "(.*)*x"}, "target_modules: does not name"),
    ],
)
def test_a_configuration_is_checked_whole(hosts, tmp_path, changes, line):
    directory = _lora(tmp_path / "a", hosts["llama"], **changes)
    begin = time.monotonic()
    with pytest.raises(InputFault) as refused:
        load_adapter_of_peft(directory, hosts["llama"], "language_modeling")
    assert line in str(refused.value)
    assert time.monotonic() - begin < 20


def test_what_is_not_used_is_noted(hosts, tmp_path):
    changes = {"colour": "red", "alpha_pattern": {"k_proj": 3}, "target_modules": ["q_proj", "v_proj"]}
    directory = _lora(tmp_path / "a", hosts["llama"], **changes)
    notes = [
        one.partition(": ")[2]
        for one in load_adapter_of_peft(directory, hosts["llama"], "language_modeling").notes
    ]
    assert notes == [
        "unknown keys are not used: colour",
        "target_modules: the adapter has no tensor of v_proj",
        "alpha_pattern: matches no module: k_proj",
    ]


@pytest.mark.parametrize(
    ("host", "action", "line"),
    [
        ("opt", "train", "has base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, no tensor of"),
        ("narrow", "train", "model.layers.0.self_attn.q_proj: made for 32 features, this network has 16"),
        ("short", "train", "model.layers.2.self_attn.q_proj: this network has 2 layers"),
        ("llama", "test", "task_type: CAUSAL_LM does not fit a data set for classification"),
    ],
)
def test_an_adapter_of_another_network_is_refused_before_the_network_is_loaded(
    ground, tmp_path, capsys, monkeypatch, host, action, line
):
    directory = _lora(tmp_path / "a", ground.host("llama"))
    changes = {"narrow": {"hidden_size": 16}, "short": {"num_hidden_layers": 2}}.get(host, {})
    base = save_host("opt" if host == "opt" else "llama", tmp_path / "base", **changes)
    monkeypatch.setattr("model.network.backbone.load_backbone", None)
    word = "opt_lora" if host == "opt" else "llama_lora"
    words = [action, word, "rte", "--load", base, "--adapter", directory, "--dataset-dir", ground.rte()]
    assert launch(*words, "--project-dir", tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
