"""A plan by head from the command line: it trains, resumes, is read by others, merged and counted."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.toml.writer import toml_text
from model.network.source import resolve
from model.tensors.checkpoint import load_checkpoint
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, program, rows, run, summary
from tools import count_params, merge

LABELS = ("entailment", "not_entailment")
RANKS = {"q_proj": (4, 1, 0, 4), "k_proj": (2, 2), "v_proj": (3, 0)}
"""By head in layer 0 of the llama host, which has four heads and two of keys and values."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def plan(ground):
    """Heads of their own ranks in layer 0, rank 2 for each head elsewhere, rank 4 at roles without heads."""
    entry = ENTRY | {"lora_dropout": 0.1}
    tables = {"default": entry | {"r": 2}, "headwise_default": {"o_proj": entry, "w1": entry, "w2": entry}}
    heads = {role: _tables(entry, ranks) for role, ranks in RANKS.items()}
    path = ground.base / "heads.toml"
    path.write_text(toml_text({"granularity": "head", **tables, "model_layer_0": heads}))
    return path


def _tables(entry, ranks):
    return {
        f"head_{number}": entry | {"r": rank, "lora_alpha": 4 + number} for number, rank in enumerate(ranks)
    }


def _language(ground, plan, **options):
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", plan]
    words += ["--dataset-dir", ground.gsm8k(), "--batch-size", 8, "--max-steps", 6, "--learning-rate", 0.01]
    return [*words, "--checkpoint-every-n-steps", 1]


@pytest.fixture(scope="module")
def language(ground, plan, place):
    return run(place / "language", *_language(ground, plan))


@pytest.fixture(scope="module")
def classifier(ground, place):
    """OPT without grouped queries: [default] alone, so every head of q, k and v has rank 4."""
    path = ground.base / "all-heads.toml"
    path.write_text(toml_text({"granularity": "head", "default": ENTRY}))
    return run(place / "opt", *ground.words(lora_config=path))


def _factors(directory, role, layer=0):
    tensors = load_file(directory / "adapter" / "adapter_model.safetensors")
    ends = [name for name in tensors if f".layers.{layer}." in name and f"{role}.lora_" in name]
    a, b = (tensors[name] for name in sorted(ends))
    return a, b


def test_the_export_is_block_diagonal(language):
    for role, ranks in RANKS.items():
        a, b = _factors(language, role)
        assert a.shape[0] == b.shape[1] == max(map(sum, RANKS.values()))  # padded to one rank
        assert not a[sum(ranks) :].any()
        assert not b[:, sum(ranks) :].any()
        b = b[:, : sum(ranks)].contiguous()
        width, column = len(b) // len(ranks), 0
        for number, rank in enumerate(ranks):
            rows_ = slice(number * width, (number + 1) * width)
            own = b[rows_, column : column + rank]
            assert own.any() == (rank > 0)
            inside = torch.zeros_like(b, dtype=torch.bool)
            inside[rows_, column : column + rank] = True
            crossing = torch.zeros_like(inside)
            crossing[rows_] = crossing[:, column : column + rank] = True
            assert not b[crossing & ~inside].any()
            column += rank
    metadata = json.loads((language / "adapter" / "metadata.json").read_text())
    assert metadata["training_alpha"]["layer_0/q_proj"] == [4.0, 5.0, 6.0, 7.0]
    assert metadata["training_alpha"]["layer_0/o_proj"] == 8.0


@pytest.mark.parametrize("with_plan", [False, True])
def test_an_export_gives_the_metric_of_its_run(ground, plan, language, classifier, tmp_path, with_plan):
    cases = {
        "llama": (language, "gsm8k", ground.gsm8k(), plan),
        "opt": (classifier, "rte", ground.rte(), classifier / "lora.toml"),
    }
    for family, (done, dataset, folder, own) in cases.items():
        words = ["test", f"{family}_lora", dataset, "--load", ground.host(family), "--dataset-dir", folder]
        words += ["--adapter", done / "adapter", *(["--lora-config", own] if with_plan else [])]
        found, expected = summary(run(tmp_path / family, *words))["metrics"], summary(done)["metrics"]
        numbers = {name.split("/")[1]: value for name, value in expected.items()}
        for name, value in found.items():
            assert value == pytest.approx(numbers[name.split("/")[1]], rel=1e-5)
        assert found


def test_other_plans_of_the_same_ranks_are_refused(ground, language, tmp_path, capsys):
    entry = ENTRY | {"r": 2}
    heads = {role: _tables(entry, ranks[::-1]) for role, ranks in RANKS.items()}
    tables = {"default": entry, "headwise_default": {"o_proj": ENTRY, "w1": ENTRY, "w2": ENTRY}}
    path = tmp_path / "other.toml"
    path.write_text(toml_text({"granularity": "head", **tables, "model_layer_0": heads}))
    words = ["test", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", path]
    words += ["--dataset-dir", ground.gsm8k(), "--adapter", language / "adapter"]
    assert launch(*words, "--project-dir", tmp_path, "--project", "x") == 2
    message = capsys.readouterr().err
    assert (
        "layers.0.self_attn.q_proj: B is not zero where the ranks of head 2 meet the rows of head 1"
        in message
    )


def test_heads_that_differ_in_dropout_are_refused(ground, tmp_path, capsys):
    tables = {"default": ENTRY, "headwise_default": {"k_proj": {"head_1": ENTRY | {"lora_dropout": 0.5}}}}
    path = tmp_path / "plan.toml"
    path.write_text(toml_text({"granularity": "head", **tables}))
    words = ground.words("llama", lora_config=path)
    assert launch(*words, "--project-dir", tmp_path, "--project", "x") == 2
    message = "lora_dropout: head 1 of k_proj in layer 0 has 0.5, head 0 ([default]) has 0.0"
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(ground, plan, language, place):
    directory = place / "killed"
    words = [*_language(ground, plan), "--project-dir", directory.parent, "--project", directory.name]
    log = place / "killed.log"
    assert fork(child, "step", 4, "SIGKILL", [str(word) for word in words], log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(language)


@pytest.mark.parametrize("option", [{"gradient_checkpointing": True}, {"precision": "bf16-mixed"}])
def test_the_loss_is_that_of_the_plain_run(ground, classifier, tmp_path, option):
    done = run(tmp_path / "run", *ground.words(lora_config=classifier / "lora.toml", **option))
    close = {"rtol": 1e-5, "atol": 0} if "precision" not in option else {"rtol": 5e-2, "atol": 1e-2}
    torch.testing.assert_close([*rows(done).values()], [*rows(classifier).values()], **close)


@pytest.mark.slow
def test_two_processes_compute_what_one_does(ground, classifier, place):
    options = {
        "lora_config": ground.base / "all-heads.toml",
        "dataset_dir": ground.rte("RTE16", train=16, dev=7),
    }
    one = run(place / "one", *ground.words("llama", **options))
    words = [*ground.words("llama", **options, batch_size=4), "--num-devices", 2, "--accelerator", "cpu"]
    done = program(*words, "--project-dir", place, "--project", "two")
    assert done.returncode == 0, done.stderr
    weights = [load_checkpoint(d / "checkpoints" / "last.ckpt")["state_dict"] for d in (place / "two", one)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close([*rows(place / "two").values()], [*rows(one).values()], rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_peft_and_the_merged_network_give_the_same_logits(ground, language, classifier, tmp_path, family):
    peft = pytest.importorskip("peft")
    done, host = (language if family == "llama" else classifier), ground.host(family)
    stock = AutoModelForCausalLM if family == "llama" else AutoModelForSequenceClassification
    batch = {
        "input_ids": torch.arange(5, 29).view(2, 12),
        "attention_mask": torch.ones(2, 12, dtype=torch.long),
    }
    theirs = peft.PeftModel.from_pretrained(stock.from_pretrained(host), done / "adapter").eval()
    words = ["--load", host, "--adapter", done / "adapter", "--output", tmp_path / "merged"]
    assert merge.main([str(word) for word in words]) == 0
    merged = stock.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        expected, found, plain = (
            n(**batch).logits for n in (theirs, merged, stock.from_pretrained(host).eval())
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, expected, rtol=1e-2, atol=1e-2)


def test_the_count_is_exact_by_head(ground, plan, language, capsys):
    host = ground.host("llama")
    words = ["--model", "llama_lora", "--load", host, "--lora-config", plan, "--json"]
    words += ["--task", "causal_language_modeling"]
    assert count_params.main([str(word) for word in words]) == 0
    found = json.loads(capsys.readouterr().out)["adapters"]
    config = json.loads((resolve(str(host), "--load").path / "config.json").read_text())
    d, ffn, heads, groups = (
        config[key]
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    layers, width = config["num_hidden_layers"], config["hidden_size"] // heads
    first = sum(map(sum, RANKS.values())) * (d + width)
    others = (layers - 1) * 2 * (heads + 2 * groups) * (d + width)
    whole = layers * (4 * (d + d) + 4 * (d + ffn) + 4 * (ffn + d) + 2 * (d + ffn))
    assert found == first + others + whole
    assert summary(language)["trainable_parameters"]["adapters"] == found
