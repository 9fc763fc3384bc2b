"""What is attached where is decided before the network is changed; configurations go before the adapter."""

import pytest
import torch
from torch import nn

from configs.runtime.faults import InputFault
from model.assembly.decide import decide
from model.assembly.placement import Plans
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.factors import Factors
from model.exchange.peft_format import PeftAdapter
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from model.plan.shortcut_toml import read_shortcuts
from model.site import SiteKey
from tests.support.tiny import save_host

LORA = """
[default]
r = 0
lora_alpha = 8
lora_dropout = 0.0
adapter_name = "default"
disable_adapter = false
[all_layers.v_proj]
r = 2
lora_alpha = 4
lora_dropout = 0.1
adapter_name = "default"
disable_adapter = false
"""
SHORTCUTS = """
[default]
r = 2
shortcut_alpha = 4
proj_dropout = 0.0
projector_name = "default"
disable_projector = false
"""
PATH = "model.decoder.layers.1.self_attn.q_proj"
Q, V, CUT = SiteKey(1, "q_proj"), SiteKey(1, "v_proj"), SiteKey(2, "shortcut2")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    host = save_host("opt", tmp_path_factory.mktemp("host"))
    return load_backbone(resolve(str(host), "--load"), "classification", ("no", "yes"))


@pytest.fixture
def plans(tmp_path):
    (tmp_path / "lora.toml").write_text(LORA)
    (tmp_path / "shortcut.toml").write_text(SHORTCUTS)
    return Plans(read_plan(tmp_path / "lora.toml"), read_shortcuts(tmp_path / "shortcut.toml"))


def _adapter(norm="renorm", **changes):
    """A LoRA at one linear and a shortcut, which the published wiring has a norm after."""
    recipe = Recipe("shortcut", 3, 6.0, 0.5)
    return PeftAdapter(
        **{
            "modules": {PATH: Factors(torch.zeros(4, 32), torch.zeros(32, 4), 2.0)},
            "extra": {str(CUT): Extra(recipe, {"A": torch.zeros(3, 32), "B": torch.zeros(32, 3)})},
            "metadata": {"shortcuts": {"norm": norm, "renormed": [str(CUT)] if norm == "renorm" else []}},
            "source": "here",
            **changes,
        }
    )


def _decide(backbone, *arguments):
    decision = decide(backbone.network, backbone.family, backbone.trained_modules, *arguments)
    assert not any("forward" in module.__dict__ for module in backbone.network.modules())
    assert [n for n, p in backbone.network.named_parameters() if p.requires_grad] == ["score.weight"]
    return decision


def test_an_adapter_decides_where_nothing_is_configured(backbone):
    decision = _decide(backbone, Plans(), _adapter())
    found = {key: (one.rank, one.alpha, one.importance) for key, one in decision.configs.items()}
    assert found == {Q: (4, 8.0, 1.0), CUT: (3, 6.0, 0.5)}
    assert (set(decision.lora.configs), set(decision.shortcuts.configs)) == ({Q}, {CUT})
    assert decision.methods == {Q: "lora", CUT: "shortcut"}
    assert (decision.stream.norm, decision.renormed) == ("renorm", (CUT,))
    assert (decision.lora.source, decision.shortcuts.source) == ("here", "here")


def test_a_configuration_takes_precedence_over_the_adapter(backbone, plans):
    decision = _decide(backbone, plans, _adapter())
    assert {key.role for key in decision.lora.configs} == {"v_proj"}
    assert len(decision.shortcuts.configs) == len(decision.renormed) == 4 * 3 - 1
    assert decision.stream.norm == "renorm"
    assert (decision.lora.source, decision.shortcuts.source) == (
        str(plans.lora.path),
        str(plans.shortcuts.path),
    )
    only = _decide(backbone, Plans(plans.lora), _adapter())
    assert (set(only.shortcuts.configs), only.renormed) == ({CUT}, (CUT,))


def test_without_shortcuts_there_is_no_stream(backbone, plans):
    decision = _decide(backbone, Plans(plans.lora))
    assert (decision.stream, decision.renormed, decision.shortcuts.configs) == (None, (), {})
    assert decision.sites == decision.linears
    assert _decide(backbone, plans).stream.norm == "exact"
    assert _decide(backbone, plans, None, "renorm").stream.norm == "renorm"


def test_a_search_switches_modules_and_must_know_them(backbone, plans, tmp_path):
    switched = Plans(plans.lora, plans.shortcuts, {V: False, CUT: True}, tmp_path / "history.toml")
    configs = _decide(backbone, switched).configs
    assert [key for key, one in configs.items() if one.disabled] == [V]
    with pytest.raises(InputFault, match=r"history.toml: layer_1/q_proj is no module of the configurations"):
        _decide(backbone, Plans(plans.lora, None, {Q: True}, tmp_path / "history.toml"))


@pytest.mark.parametrize(
    ("adapter", "norm", "message"),
    [
        (_adapter(), "exact", "--shortcut-norm: here was trained with 'renorm', got 'exact'"),
        (
            _adapter(metadata={"shortcuts": {"norm": "renorm", "renormed": ["layer_9/shortcut1"]}}),
            None,
            "here: metadata.json: shortcuts: layer_9/shortcut1 is no site of this network",
        ),
        (_adapter(metadata={"shortcuts": 3}), None, "here: metadata.json: shortcuts: must be a table"),
    ],
)
def test_a_wiring_that_does_not_fit_is_refused(backbone, adapter, norm, message):
    with pytest.raises(InputFault) as caught:
        _decide(backbone, Plans(), adapter, norm)
    assert str(caught.value) == message


def test_modules_saved_whole_are_the_plans_or_the_adapters(backbone, plans, tmp_path):
    head = {"score.weight": torch.zeros(2, 32), "model.decoder.final_layer_norm.weight": torch.zeros(32)}
    adapter = _adapter(head=head)
    assert _decide(backbone, Plans(), adapter).modules_to_save == ("model.decoder.final_layer_norm",)
    with pytest.raises(InputFault, match="here: holds model.decoder.final_layer_norm whole, which"):
        _decide(backbone, plans, adapter)
    (tmp_path / "more.toml").write_text('modules_to_save = ["final_layer_norm", "score"]\n' + LORA)
    named = Plans(read_plan(tmp_path / "more.toml"))
    assert "model.decoder.final_layer_norm" in _decide(backbone, named, adapter).modules_to_save
    assert isinstance(backbone.network.get_submodule("model.decoder.final_layer_norm"), nn.LayerNorm)
