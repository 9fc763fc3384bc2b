"""Answers come from the template the adapter was trained with, and nothing else is on standard output."""

import io
import json
import sys

import pytest

from configs.runtime.faults import InputFault
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import collect
from model.exchange.peft_format import write
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from tests.tools.words import refused
from tools.generate import lines_of, main, prompts_of, read_rows, shown

TEMPLATE = "Question: {question}\nAnswer:"


@pytest.fixture(scope="module")
def run(ground, tmp_path_factory):
    """Return a run directory with a random adapter of a language model."""
    backbone = load_backbone(resolve(str(ground.host("llama")), "--load"), "language_modeling")
    plan = read_plan(ground.plan("generate-start", init_lora_weights=False))
    made = assemble(backbone, Plans(plan), None, 3)
    metadata = {"template": TEMPLATE, "base_digest": "0" * 64}
    file = collect(made.network, made.attachments, made.methods, made.head, metadata)
    directory = tmp_path_factory.mktemp("run") / "adapter"
    directory.mkdir()
    write(directory, file, task_type="CAUSAL_LM", base="base", dropout=0.0)
    return directory.parent


def _answers(capsys, ground, run, *words):
    arguments = ["--load", ground.host("llama"), "--adapter", run, "--max-new-tokens", 8, *words]
    assert main([str(word) for word in arguments]) == 0
    return capsys.readouterr()


def test_prompts_of_all_three_kinds_give_one_answer(ground, run, capsys, tmp_path, monkeypatch):
    one = _answers(capsys, ground, run, "--prompt", "How many?")
    assert one.out.strip()
    assert "was trained on another base" in one.err
    rows, lines = tmp_path / "rows.jsonl", tmp_path / "lines.txt"
    rows.write_text(json.dumps({"question": "How many?"}) + "\n" + json.dumps({"question": "Why?"}) + "\n")
    lines.write_text("How many?\n\nWhy?\n")
    many = _answers(capsys, ground, run, "--file", rows).out
    assert len(many.splitlines()) == 2
    assert many.splitlines()[0] == shown(one.out, alone=False)
    assert _answers(capsys, ground, run, "--file", lines).out == many
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\nWhy?\n"))
    assert _answers(capsys, ground, run).out == many


def test_samples_repeat_with_their_seed(ground, run, capsys):
    words = ["--prompt", "How many?", "--sample", "--temperature", 3, "--top-p", 0.9, "--seed"]
    first, again, other = (_answers(capsys, ground, run, *words, seed).out for seed in (1, 1, 2))
    assert first == again != other


def test_the_template_is_filled_as_the_data_set_does():
    assert prompts_of(["a {b}"], TEMPLATE) == ["Question: a {b}\nAnswer:"]
    assert prompts_of(["as it is"], None) == ["as it is"]
    two = "{instruction}|{input}"
    assert prompts_of(["do", {"instruction": "x", "input": "y"}], two) == ["do|", "x|y"]
    with pytest.raises(InputFault) as refusal:
        prompts_of([{"instruction": "x"}, {"instruction": 3, "input": ""}], two)
    assert refusal.value.lines == (
        "prompt 1: field 'input' is missing",
        "prompt 2: field 'instruction' must be text, got int",
    )
    with pytest.raises(InputFault, match="prompt 1: field 'prompt' has an unpaired surrogate"):
        prompts_of(["\udcff"], None)
    with pytest.raises(InputFault, match="--prompt: no prompt was given"):
        prompts_of([], TEMPLATE)
    with pytest.raises(InputFault, match="prompt 1: the adapter has no prompt template"):
        prompts_of([{"question": "x"}], None)


def test_files_are_read_whole_or_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "b"}\n{"a": ')
    with pytest.raises(InputFault, match="rows.jsonl:2: is not a JSON object"):
        read_rows(path)
    path.write_bytes(b"\xff")
    with pytest.raises(InputFault, match="is not UTF-8"):
        read_rows(path)
    with pytest.raises(InputFault, match="--file: cannot read"):
        read_rows(tmp_path / "none")
    assert lines_of("a\r\n\n b\n") == ["a", " b"]


def test_a_prompt_that_is_too_long_is_refused_before_any_answer(ground, run, capsys, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Why?\n" + "x" * 200 + "\n")
    assert main(["--load", str(ground.host("llama")), "--adapter", str(run), "--file", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    tokens = 1 + len(TEMPLATE.replace("{question}", "x" * 200))  # the start token, then a token a byte
    assert f"error: prompt 2: has {tokens} tokens, the network takes 128" in told.err


def test_each_of_several_answers_is_one_line():
    assert shown(" a\nb ", alone=False) == "a\\nb"
    assert shown(" a\nb ", alone=True) == "a\nb"


def test_all_faults_are_reported_before_torch_is_imported(ground, run, tmp_path):
    words = ["--load", "./none", "--adapter", tmp_path, "--prompt", "x", "--file", "y", "--seed", 3]
    assert refused("tools.generate", *words) == [
        "error: --seed: only with --sample",
        "error: --file: cannot be combined with --prompt",
        "error: --load: no file or directory 'none'",
        f"error: --adapter: '{tmp_path}' is neither an adapter (it holds no adapter_config.json) nor a run"
        " with one",
    ]
    lines = refused("tools.generate", "--load", ground.host("llama"), "--adapter", run, "--temperature", 0)
    assert lines == ["error: --temperature: must be a number in [0.0001, 10000], got 0"]
