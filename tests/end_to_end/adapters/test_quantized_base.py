"""A base in int8 or nf4, from the command line to the run directory, PEFT and the merged checkpoint."""

import json
import warnings
from importlib.util import find_spec

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from configs.runtime import kinds
from configs.schema import base_dtype
from configs.schema.options import QUANTIZED_DTYPES
from configs.toml.writer import toml_text
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.adapter_directory import base_format, read_files
from model.exchange.export import collect, export, logits
from model.network.backbone import load_backbone, with_quantizer
from model.network.quantization import QuantizedWeight, dequantize
from model.network.snapshot import quiet_transformers
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from model.run import start
from tests.model.network.test_quantization import BATCH, KIND
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, program, rows, run, summary
from tests.support.tiny import save_host
from tools.count_params import main as count
from tools.merge import main as merge

HAS_PACKAGE = find_spec("bitsandbytes") is not None
WORDS = QUANTIZED_DTYPES if HAS_PACKAGE else QUANTIZED_DTYPES[-1:]
"""One stand-in is enough where the package is not installed."""
needs_package = pytest.mark.skipif(not HAS_PACKAGE, reason="an optional package")


@pytest.fixture(scope="module", autouse=True)
def kind():
    """Replace the kinds of the package by one in plain torch where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_PACKAGE:
            load = kinds.load
            patch.setattr(kinds, "load", lambda r, n: KIND if r == kinds.QUANTIZERS else load(r, n))
            patch.setattr(base_dtype, "find_spec", lambda name: name)
            patch.setattr(start, "QUANTIZER_PACKAGE", "torch")  # whose version the run records
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def words(ground, place):
    """Return the words of a run of LoRA and experts, with a norm that trains whole."""

    def make(base_dtype="nf4", **options):
        path = place / "plan.toml"
        experts = {**ENTRY, "method": "hydra", "heads": 2}
        table = {
            "modules_to_save": ["norm"],
            "default": ENTRY,
            "all_layers": {"gate": experts, "w1": experts},
        }
        path.write_text(toml_text(table))
        return ground.words(
            "llama",
            lora_config=path,
            base_dtype=base_dtype,
            checkpoint_every_n_steps=1,
            max_steps=4,
            **options,
        )

    return make


@pytest.fixture(scope="module", params=WORDS)
def trained(request, place, words):
    return request.param, run(place / request.param, *words(request.param))


def test_checkpoint_and_adapter_give_the_number_of_the_run(trained, place, ground):
    word, directory = trained
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    adapter = run(place / f"{word}-a", "test", "llama_lora", "rte", "--adapter", directory / "adapter", *data)
    best = directory / "checkpoints" / "best.ckpt"
    checkpoint = run(place / f"{word}-c", "test", "--load", best, "--load-type", "pl")
    found = [summary(one)["metrics"]["test/loss"] for one in (adapter, checkpoint)]
    assert found[0] == found[1] == pytest.approx(summary(directory)["metrics"]["val/loss"], rel=1e-12)
    assert f'base_dtype = "{word}"' in (adapter / "config.toml").read_text()


def test_counts_and_digests_are_those_of_any_other_run(trained, place, words, ground, capsys):
    word, directory = trained
    metadata = json.loads((directory / "adapter" / "metadata.json").read_text())
    assert metadata["evaluation"]["base_dtype"] == word
    plain = place / "bfloat16"
    plain = plain if plain.exists() else run(plain, *words("bfloat16"))
    told = json.loads((plain / "adapter" / "metadata.json").read_text())
    assert metadata["base_digest"] == told["base_digest"]
    assert summary(directory)["trainable_parameters"] == summary(plain)["trainable_parameters"]
    assert rows(directory)[1] == pytest.approx(rows(plain)[1], rel=0.2)
    assert rows(directory)[1] != rows(plain)[1]
    line = ["--model", "llama_lora", "--load", ground.host("llama"), "--json"]
    capsys.readouterr()
    assert count([str(w) for w in (*line, "--lora-config", directory / "lora.toml")]) == 0
    assert (
        json.loads(capsys.readouterr().out)["trainable"]
        == (summary(directory)["trainable_parameters"]["total"])
    )


@pytest.mark.skipif(HAS_PACKAGE, reason="a killed run tests more")
def test_a_second_run_leaves_the_same_bytes(trained, place, words):
    word, directory = trained
    assert comparable(run(place / f"{word}-again", *words(word))) == comparable(directory)


@needs_package
@pytest.mark.parametrize(
    "trained",
    [*(pytest.param(w, marks=pytest.mark.slow) for w in WORDS[:-1]), WORDS[-1]],
    indirect=True,
)
def test_a_killed_run_resumes_to_the_same_bytes(trained, place, words):
    word, directory = trained
    other, log = place / f"{word}-killed", place / f"{word}.log"
    line = [str(w) for w in (*words(word), "--project-dir", place, "--project", other.name)]
    assert fork(child, "step", 2, "SIGKILL", line, log) == -9, log.read_text()
    last = other / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(other) == comparable(directory)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_run(place, words, precision):
    directory = run(place / precision, *words(precision=precision))
    assert (directory / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("heuristic", ["grad_norm", "synflow"])
def test_a_search_scores_over_it(place, words, heuristic):
    line = words(importance_test_name=heuristic, imp_limit_test_batches=1)
    directory = run(place / heuristic, "imp-test", *line[1:])
    assert (directory / "search" / f"scores_{heuristic}.toml").exists()


def test_gradient_checkpointing_gives_the_same_losses(place, words):
    one, two = (run(place / f"checkpointing-{on}", *words(gradient_checkpointing=on)) for on in (None, True))
    assert rows(one) == pytest.approx(rows(two), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "fsdp"},
            "--strategy: fsdp cannot shard a base in nf4; did you mean 'ddp'?",
        ),
        (
            {"compile": True},
            "--compile: a base in nf4 is dequantized in every product, which cannot be compiled",
        ),
    ],
)
def test_what_needs_plain_weights_is_refused(words, capsys, options, message):
    assert launch(*words(**options), "--dry-run") == 2
    assert f"error: {message}" in capsys.readouterr().err.splitlines()


def test_a_plain_model_has_nothing_frozen(ground, capsys):
    line = ("train", ground.host("llama"), "rte", "--dataset-dir", ground.rte(), "--base-dtype", "int8")
    assert launch(*line, "--dry-run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --base-dtype: 'int8' is for frozen weights, and the plain model '")


def test_without_the_package_it_is_refused_before_anything_heavy(words, trained, tmp_path, capsys):
    word, directory = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_dtype, "find_spec", lambda name: None)
        assert launch(*words(word), "--print-config") == 2
        needs = f"'{word}' needs the package bitsandbytes; it comes with `pip install bitsandbytes`"
        assert capsys.readouterr().err.splitlines() == [f"error: --base-dtype: {needs}"]
        files = read_files(directory, "--adapter")
        assert base_format(files, "float32") == "float32"
        line = ["--load", "x", "--adapter", directory, "--output", tmp_path / "out"]
        assert merge([str(one) for one in line]) == 2
        assert f"adapter: trained on a base: {needs}" in capsys.readouterr().err
    assert base_format(files, None) == word


@pytest.mark.skipif(HAS_PACKAGE, reason="about an installation without it")
def test_a_process_without_the_package_refuses_at_once(words):
    done = program(*words(), "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs the package bitsandbytes" in done.stderr


def _host(tmp_path):
    """Return a host whose widths the package's own layers take on a CPU."""
    return save_host("llama", tmp_path / "host", hidden_size=64, intermediate_size=128)


def _exported(tmp_path, host, word, *, wide):
    """Export a random LoRA over a quantized base; return what was assembled and the adapter's directory."""
    plan = tmp_path / "plan.toml"
    plan.write_text(toml_text({"default": {**ENTRY, "init_lora_weights": False}}))
    source = resolve(str(host), "--load")
    backbone = load_backbone(source, "language_modeling", base_dtype="float32" if wide else word)
    made = assemble(with_quantizer(backbone, word), Plans(read_plan(plan)), None, 0)
    metadata = {"evaluation": {"task": "causal_language_modeling", "base_dtype": word}}
    file = collect(made.network, made.attachments, made.methods, made.saved_modules, metadata)
    facts = {"task_type": "CAUSAL_LM", "base": str(host), "dropout": 0.0}
    export(tmp_path / "adapter", file, made.network, made.attachments, BATCH, **facts)
    return made, tmp_path / "adapter"


@pytest.mark.parametrize("word", WORDS)
def test_merging_folds_into_the_values_it_was_trained_over(tmp_path, capsys, word):
    host = _host(tmp_path)
    made, adapter = _exported(tmp_path, host, word, wide=True)
    expected = logits(made.network, BATCH)
    line = ["--load", str(host), "--adapter", str(adapter), "--output"]
    assert merge([*line, str(tmp_path / "merged")]) == 0
    out = capsys.readouterr().out
    assert f"note: merged into the base's linear layers as {word} represents them" in out
    with quiet_transformers():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(merged, BATCH), expected, rtol=1e-4, atol=1e-5)
    assert merge([*line, str(tmp_path / "wide"), "--base-dtype", "float32"]) == 0
    with quiet_transformers():
        wide = AutoModelForCausalLM.from_pretrained(tmp_path / "wide").eval()
    assert not torch.allclose(logits(wide, BATCH), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("word", WORDS)
def test_peft_reads_the_adapter_over_the_same_values(tmp_path, word):
    made, adapter = _exported(tmp_path, _host(tmp_path), word, wide=True)
    expected = logits(made.network, BATCH)
    for attachment in made.attachments.values():
        attachment.detach()
    dequantize(made.network)
    assert not any(isinstance(p, QuantizedWeight) for p in made.network.parameters())
    with quiet_transformers():
        theirs = peft.PeftModel.from_pretrained(made.network, adapter).eval()
    torch.testing.assert_close(logits(theirs, BATCH), expected, rtol=1e-4, atol=1e-5)


SETTINGS = {
    "int8": {"load_in_8bit": True},
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    },
}


@needs_package
@pytest.mark.parametrize("word", WORDS)
def test_transformers_holds_the_same_weights_and_peft_reads_the_adapter_over_them(tmp_path, word):
    host = _host(tmp_path)
    made, adapter = _exported(tmp_path, host, word, wide=False)
    expected = logits(made.network, BATCH)
    with quiet_transformers(), warnings.catch_warnings(action="ignore"):
        settings = BitsAndBytesConfig(**SETTINGS[word])
        theirs = AutoModelForCausalLM.from_pretrained(
            host, dtype=torch.bfloat16, quantization_config=settings
        ).eval()
        linears = {name: module for name, module in theirs.named_modules() if hasattr(module, "weight")}
        quantized = {n: p for n, p in made.network.named_parameters() if isinstance(p, QuantizedWeight)}
        assert len(quantized) == 21
        for name, weight in quantized.items():
            codes = linears[name.removesuffix(".weight")].weight.data
            assert codes.view(torch.uint8).equal(weight.codes.view(torch.uint8)), name
        found = logits(peft.PeftModel.from_pretrained(theirs, adapter).eval(), BATCH)
    # bfloat16 rounds to 2^-8 at each of the layers' sums, in another order there.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * expected.abs().max().item())


@needs_package
@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(place, words):
    line = words(batch_size=None)
    one = run(place / "one", *line, "--batch-size", 8)
    two = ("--batch-size", 4, "--num-devices", 2, "--accelerator", "cpu")
    done = program(*line, *two, "--project-dir", place, "--project", "two")
    assert done.returncode == 0, done.stderr
    assert rows(place / "two") == pytest.approx(rows(one), rel=2e-3)
