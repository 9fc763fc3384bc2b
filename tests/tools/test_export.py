"""What vLLM's reader refuses is named before anything is written; the copy is one that it takes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.exchange.adapter_directory import read_files
from model.exchange.peft_format import read
from tests.tools.words import refused
from tools.export import RANKS, largest_rank, least_rank, main, refusals, scales

_Q, _V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"


def _adapter(directory, ranks=None, extra=None, **config):
    """Write an adapter with q and v of the given ranks."""
    directory.mkdir(parents=True)
    ranks = ranks or {_Q: 4, _V: 4}
    table = {"peft_type": "LORA", "r": max(ranks.values()), "lora_alpha": 8, "target_modules": [_Q, _V]}
    table |= {"task_type": "CAUSAL_LM", "bias": "none", "modules_to_save": None, **config}
    (directory / "adapter_config.json").write_text(json.dumps(table))
    tensors = dict(extra or {})
    torch.manual_seed(0)
    for module, rank in ranks.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, 6)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(5, rank)
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def _lines(directory, max_rank=16):
    where = f"{directory}/adapter_config.json: "
    return [line.removeprefix(where) for line in refusals(read_files(directory, "A"), max_rank, folds=False)]


def test_a_plain_adapter_passes_and_the_options_are_printed(tmp_path, capsys):
    adapter = _adapter(tmp_path / "run" / "adapter")
    assert main([str(tmp_path / "run"), "--check", "vllm"]) == 0
    assert capsys.readouterr().out == (
        f"vllm: serve with --enable-lora --max-lora-rank 8 --lora-modules NAME={adapter}\n"
    )


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"bias": "all"}, "bias: vLLM does not support biases in adapters, got 'all'"),
        ({"use_dora": True}, "use_dora: vLLM does not support DoRA"),
        ({"peft_type": "IA3"}, "peft_type: vLLM supports only LORA, got 'IA3'"),
        ({"r": 24}, "r: rank 24 is above --max-lora-rank 16; serve with --max-lora-rank 32"),
        ({"r": 513}, "r: rank 513 is above 512, the largest that vLLM supports"),
        (
            {"modules_to_save": ["score"]},
            "modules_to_save: vLLM does not support modules saved whole (score), and without them the outputs"
            " would differ; merge it with tools.merge instead",
        ),
        (
            {"alpha_pattern": {"v_proj": 2}},
            "alpha_pattern: vLLM applies the scale 2 to every module, this adapter has others; --output"
            " writes a copy with the scales multiplied into B",
        ),
        ({"rank_pattern": []}, None),
        ({"rank_pattern": [1]}, "rank_pattern: must be a table of patterns"),
        ({"alpha_pattern": {"v_proj": "x"}}, "alpha_pattern: v_proj: must be a number other than 0, got 'x'"),
    ],
)
def test_every_unsupported_setting_is_named(tmp_path, config, line):
    assert _lines(_adapter(tmp_path / "a", **config)) == ([line] if line else [])


def test_norms_that_shortcuts_left_behind_are_named(tmp_path):
    adapter = _adapter(tmp_path / "a")
    record = {
        "sha256": {"adapter_model.safetensors": "0" * 64},
        "shortcuts": {"renormed": ["layer_0/shortcut1"]},
    }
    (adapter / "metadata.json").write_text(json.dumps(record))
    (line,) = _lines(adapter)
    assert "vLLM does not support shortcut" in line


def test_a_head_is_found_without_its_being_named(tmp_path):
    adapter = _adapter(tmp_path / "a", extra={"base_model.model.score.weight": torch.zeros(2, 6)})
    assert "modules_to_save: vLLM does not support modules" in _lines(adapter)[0]


def test_a_rank_is_read_from_the_tensors_too(tmp_path):
    adapter = _adapter(tmp_path / "a", {_Q: 32, _V: 4}, r=4, rank_pattern={"q_proj": 32})
    assert largest_rank(read_files(adapter, "A")) == 32
    assert "serve with --max-lora-rank 32" in _lines(adapter)[0]


def test_the_flag_is_the_smallest_that_fits():
    assert [least_rank(rank) for rank in (1, 2, 8, 9, 257, 512)] == [1, 8, 8, 16, 320, 512]
    assert all(least_rank(rank) == rank for rank in RANKS)


def test_scales_follow_patterns_and_rslora(tmp_path):
    files = read_files(_adapter(tmp_path / "a", rank_pattern={"v_proj": 4}, alpha_pattern={_Q: 4}), "A")
    assert scales(files) == {_Q: 1.0, _V: 2.0}
    assert set(scales(read_files(_adapter(tmp_path / "b", use_rslora=True), "A")).values()) == {4.0}


def test_the_copy_has_one_scale_and_the_same_delta(tmp_path, capsys):
    ranks = {_Q: 8, _V: 4}
    adapter = _adapter(tmp_path / "a", ranks, rank_pattern={"v_proj": 4}, alpha_pattern={"q_proj": 4})
    assert main([str(adapter), "--check", "vllm"]) == 2
    assert main([str(adapter), "--check", "vllm", "--output", str(tmp_path / "copy")]) == 0
    shown = capsys.readouterr().out
    assert f"exported: {tmp_path / 'copy'} (read back)\n" in shown
    assert f"--max-lora-rank 8 --lora-modules NAME={tmp_path / 'copy'}\n" in shown
    config = json.loads((tmp_path / "copy" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 8
    before, after = (load_file(d / "adapter_model.safetensors") for d in (adapter, tmp_path / "copy"))
    for module, scale in {_Q: 4 / 8, _V: 8 / 4}.items():
        a, b = (f"base_model.model.{module}.lora_{factor}.weight" for factor in "AB")
        torch.testing.assert_close(after[b] @ after[a], scale * before[b] @ before[a])


def test_nothing_is_written_of_what_is_refused(tmp_path):
    adapter = _adapter(tmp_path / "a", modules_to_save=["score"], use_dora=True, r=24)
    lines = refused("tools.export", adapter, "--check", "vllm", "--output", tmp_path / "copy")
    assert [line.split(": ")[2] for line in lines] == ["use_dora", "modules_to_save", "r"]
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_invalid_flags_are_refused_before_torch_is_imported(tmp_path):
    assert refused("tools.export", tmp_path, "--check", "vlm", "--max-lora-rank", 17) == [
        "error: --check: no reader 'vlm', one of llama.cpp, vllm; did you mean 'vllm'?",
        "error: --max-lora-rank: must be one of 1, 8, 16, 32, 64, 128, 256, 320, 512, got 17",
    ]
    adapter = _adapter(tmp_path / "a")
    assert refused("tools.export", adapter, "--check", "vllm", "--output", adapter) == [
        f"error: --output: '{adapter}' already exists and is not overwritten"
    ]


def test_a_compact_copy_keeps_ranks_and_names_its_base(tmp_path, capsys):
    ranks = {_Q: 8, _V: 4}
    adapter = _adapter(tmp_path / "a", ranks, rank_pattern={"v_proj": 4}, alpha_pattern={"q_proj": 4})
    words = [str(adapter), "--output", str(tmp_path / "small"), "--compact", "--base-name", "org/base"]
    assert main(words) == 0
    config = json.loads((tmp_path / "small" / "adapter_config.json").read_text())
    assert config["rank_pattern"] == ranks
    assert config["base_model_name_or_path"] == "org/base"
    assert "base_model: org/base\n" in (tmp_path / "small" / "README.md").read_text()
    (adapter / "README.md").write_text("# Mine\n")
    assert main([str(adapter), "--output", str(tmp_path / "wide")]) == 0
    assert (tmp_path / "wide" / "README.md").read_text() == "# Mine\n"
    sizes = [(tmp_path / name / "adapter_model.safetensors").stat().st_size for name in ("small", "wide")]
    assert sizes[0] < sizes[1]
    assert refused("tools.export", adapter, "--compact", "--base-name", "x") == [
        "error: --base-name: only with --output",
        "error: --compact: only with --output",
        "error: --check: required, unless --output is given",
    ]


def test_llama_cpp_is_checked_and_served_by_a_copy(tmp_path, capsys):
    adapter = _adapter(tmp_path / "a", {_Q: 8, _V: 4}, rank_pattern={"v_proj": 4}, alpha_pattern={_V: 9})
    assert main([str(adapter), "--check", "llama.cpp"]) == 2
    assert f"llama.cpp gives {_V} the scale" in capsys.readouterr().err
    assert main([str(adapter), "--check", "llama.cpp", "--output", str(tmp_path / "copy")]) == 0
    assert main([str(tmp_path / "copy"), "--check", "llama.cpp"]) == 0
    assert "convert_lora_to_gguf.py --base BASE" in capsys.readouterr().out


def test_the_sum_of_adapters_is_one_lora(tmp_path, capsys):
    """Of ranks that add up, also where an adapter has no module."""
    first = _adapter(tmp_path / "a", {_Q: 8, _V: 4}, rank_pattern={"v_proj": 4}, alpha_pattern={"q_proj": 4})
    second = _adapter(tmp_path / "b", {_Q: 2})
    words = [str(first), "--with", str(second), "--weights", "0.5,-2", "--output", str(tmp_path / "sum")]
    assert main(words) == 0
    ones, others, sums = (read(path).modules for path in (first, second, tmp_path / "sum"))
    assert {module: factors.rank for module, factors in sums.items()} == {_Q: 10, _V: 4}
    for module, factors in sums.items():
        wanted = sum(
            weight * part[module].scale * part[module].b @ part[module].a
            for weight, part in ((0.5, ones), (-2.0, others))
            if module in part
        )
        torch.testing.assert_close(factors.scale * factors.b @ factors.a, wanted)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--weights", "1"], "--weights: only with --with"),
        (["--with", "B", "--weights", "1"], "--weights: 1 of them for 2 adapters"),
        (["--with", "B", "--weights", "1,x"], "--weights: must be"),
        (["--with", "A"], "--with: an adapter is given twice"),
        (["--with", "none"], "is neither an adapter"),
    ],
)
def test_a_sum_that_cannot_be_made_is_refused(tmp_path, words, line):
    places = {"A": _adapter(tmp_path / "a", {_Q: 8}), "B": _adapter(tmp_path / "b", {_Q: 8})}
    words = [str(places.get(word, word)) for word in words]
    assert line in "\n".join(refused("tools.export", places["A"], "--output", tmp_path / "o", *words))
    assert not (tmp_path / "o").exists()
