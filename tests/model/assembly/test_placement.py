"""The files that options name, read together: plans, and a history's last decision."""

from types import SimpleNamespace

import pytest

from configs.runtime.faults import Findings, InputFault
from configs.toml.writer import toml_text
from model.assembly.placement import Plans, read_plans
from model.site import SiteKey
from tests.support.runs import ENTRY, PROJECTION

FIRST = """
[dyrealloc_0]
epoch = 0
step = 0
turn_on = [["0", "q_proj", "0.25", "False"], ["0", "fc1", "1.5", "True"]]
"""
STRINGS = """
[dyrealloc_1]
epoch = 1
step = 4
turn_on = [["0", "q_proj", "2.0", "True"], ["0", "fc1", "1.5", "False"], ["1", "shortcut_ffn", "1.0", "True"]]
"""
TYPED = """
[dyrealloc_1]
epoch = 1
step = 4
turn_on = [[0, "q_proj", 2.0, true], [0, "w1", 1.5, false], [1, "shortcut2", 1.0, true]]
"""
LAST = {SiteKey(0, "q_proj"): True, SiteKey(0, "w1"): False, SiteKey(1, "shortcut2"): True}


def _options(**paths):
    names = ("lora_config", "shortcut_config", "realloc_hist_path")
    return SimpleNamespace(**{name: paths.get(name) for name in names})


def _read(**paths):
    findings = Findings()
    plans = read_plans(_options(**paths), findings)
    findings.settle()
    return plans


def test_without_options_nothing_is_read():
    assert _read() == Plans()
    assert Plans().notes("train") == ()
    Plans().check_history([])


@pytest.mark.parametrize("last", [STRINGS, TYPED], ids=["strings", "typed"])
def test_the_last_decision_counts_in_both_formats(tmp_path, last):
    path = tmp_path / "history.toml"
    path.write_text(FIRST + last)
    plans = _read(realloc_hist_path=path)
    assert plans.switches == LAST
    assert plans.history == path


def test_all_files_are_read_and_their_faults_reported_together(tmp_path):
    (tmp_path / "lora.toml").write_text(toml_text({"default": {**ENTRY, "r": "8"}}))
    (tmp_path / "shortcut.toml").write_text(toml_text({"default": {**PROJECTION, "r": -1}}))
    (tmp_path / "history.toml").write_text("[dyrealloc_0]\nepoch = 0\nstep = 0\nturn_on = 3\n")
    files = ("lora.toml", "shortcut.toml", "history.toml")
    paths = dict(zip(("lora_config", "shortcut_config", "realloc_hist_path"), (tmp_path / f for f in files)))
    with pytest.raises(InputFault) as refusal:
        _read(**paths)
    assert [line.split(":")[0] for line in refusal.value.lines] == [str(tmp_path / file) for file in files]


def test_a_file_that_is_not_there_names_its_flag(tmp_path):
    with pytest.raises(InputFault, match="--realloc-hist-path"):
        _read(realloc_hist_path=tmp_path / "none.toml")


def test_a_module_that_is_not_planned_is_refused(tmp_path):
    path = tmp_path / "history.toml"
    path.write_text(FIRST + STRINGS)
    plans = _read(realloc_hist_path=path)
    plans.check_history(LAST)
    with pytest.raises(InputFault) as refusal:
        plans.check_history([SiteKey(0, "q_proj")])
    assert refusal.value.lines == (f"{path}: layer_0/w1 is no module of the configurations given",)


def test_a_router_over_trained_parts_asks_for_them(tmp_path):
    path = tmp_path / "lora.toml"
    off = {**ENTRY, "r": 0, "method": "lora_split", "combine": "routed"}
    path.write_text(toml_text({"default": off, "all_layers": {"gate": {**off, "r": 2}, "w1": ENTRY}}))
    assert _read(lora_config=path).routed_faults() == [
        f'{path}: [all_layers.gate] combine: "routed" needs parts that are trained already; give'
        " their adapter with --adapter"
    ]
    assert Plans().routed_faults() == []
