"""The tool reads adapters of any kind, writes numbers and views, and refuses wrong words early."""

import json
from dataclasses import replace

import pytest
import torch

from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.peft_format import write
from tests.model.exchange.test_adapter_similarity import MODULES, adapter
from tests.tools.words import refused
from tools.analyze_ab import main


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = []
    for seed, name in enumerate(("one", "two", "three")):
        path = tmp_path / name / "adapter"
        path.mkdir(parents=True)
        source = torch.Generator().manual_seed(seed)
        tensors = {"A": torch.randn(2, 6, generator=source), "B": torch.randn(6, 2, generator=source)}
        extra = {"layer_2/residual1": Extra(Recipe("shortcut", 2, 4.0), tensors)}
        facts = {"task_type": "CAUSAL_LM", "base": "x", "dropout": 0.0}
        write(path, replace(adapter(seed), extra=extra), **facts)
        paths.append(path)
    return paths


def test_runs_and_directories_are_compared(runs, tmp_path, capsys):
    assert main([str(runs[0].parent), *map(str, runs[1:])]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "ab.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "ab.json").read_text())
    assert list(found["adapters"]) == ["one", "two", "three"]
    assert found["adapters"]["one"][0] == [0, "layer_2/residual1", "A", 12]
    assert found["adapters"]["one"][3] == [3, "model.layers.2.self_attn.q_proj", "B", 12]
    assert found["cosine"]["modules"][MODULES[0]]["A"] > 0.99
    assert [(one["view"], one["count"]) for one in found["tsne"]] == [("all", 30), ("A", 15), ("B", 15)]
    lines = [line.split() for line in printed.splitlines()]
    mean = next(line for line in lines if line[:1] == ["mean"])
    assert [float(cell) for cell in mean[1:]] == pytest.approx(
        list(found["cosine"]["mean"].values()), abs=1e-4
    )
    assert {line[0] for line in lines if len(line) == 3} >= {
        "residual1",
        "self_attn.q_proj",
        "self_attn.v_proj",
    }


def test_equal_adapters_give_equal_files(runs, tmp_path, capsys):
    words = list(map(str, runs))
    assert main([*words, "--output", "b.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "b.json").read_text())
    assert main([*words, "--output", "c.json"]) == 0
    for ending in ("json", "png"):
        assert (tmp_path / f"b.{ending}").read_bytes() == (tmp_path / f"c.{ending}").read_bytes()


def test_what_cannot_be_compared_is_refused(runs, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    assert refused("tools.analyze_ab", runs[0].parent, runs[0], tmp_path / "none", "--output", runs[0]) == [
        f"error: --output: '{runs[0]}' already exists and is not overwritten",
        f"error: ADAPTERS: '{tmp_path / 'none'}' is neither an adapter (it holds no adapter_config.json)"
        " nor a run with one",
        f"error: ADAPTERS: '{runs[0]}' is given twice",
    ]
    assert refused("tools.analyze_ab", runs[0], "--output", tmp_path / "d.json") == [
        "error: ADAPTERS: needs at least 2 adapters, got 1"
    ]
    gates = {"layer_0/w1": Extra(Recipe("shortcut", 1, 1.0), {"G": torch.ones(2)})}
    write(
        tmp_path / "none",
        replace(adapter(0), modules={}, extra=gates),
        task_type="CAUSAL_LM",
        base="x",
        dropout=0.0,
    )
    assert main([str(runs[0]), str(tmp_path / "none"), "--output", "d.json"]) == 2
    assert "none has no A and B matrices" in capsys.readouterr().err
    assert not (tmp_path / "d.json").exists()
