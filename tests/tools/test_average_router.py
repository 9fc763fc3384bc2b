"""The average of routers is a plain LoRA that PEFT reads, and its error is the one that is reported."""

import json
import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from configs.toml.writer import toml_text
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import collect
from model.exchange.peft_format import read, write
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from tests.tools.words import refused
from tools.average_router import main
from tools.merge import main as merge

TEXTS = ("The fox is in the tree.", "Tom has 3 pens and gets 2. How many?", "No.")
KEYS = {
    "token": {"method": "hydra", "heads": 3},
    "uniform": {"method": "hydra", "heads": 3, "router": "uniform"},
    "moe": {"method": "lora_moe", "heads": 3},
    "split": {"method": "lora_split", "heads": 2, "combine": "sum"},
    "routed": {"method": "lora_split", "heads": 3, "combine": "routed"},
}
EXACT = ("uniform", "split")


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS) + "\n")
    return path


def _made(ground, directory, manner, family="llama", names=()):
    """Write random experts for a tiny host and return the network with them."""
    purpose = "classification" if names else "language_modeling"
    backbone = load_backbone(resolve(str(ground.host(family)), "--load"), purpose, names)
    plan = read_plan(ground.plan(f"average-{manner}", **KEYS[manner], init_lora_weights=False))
    made = assemble(backbone, Plans(plan), None, 3)
    for attachment in made.attachments.values():
        attachment.strength = 0.5
        if "router" in dict(attachment.adapter.named_parameters()):
            draw = torch.Generator().manual_seed(1)
            attachment.adapter.router.data.normal_(generator=draw)  # far from uniform
    file = collect(made.network, made.attachments, made.methods, made.head, {"template": "{question}"})
    directory.mkdir(parents=True)
    kind = "SEQ_CLS" if names else "CAUSAL_LM"
    write(directory, file, task_type=kind, base=str(ground.host(family)), dropout=0.0)
    return made


def _words(ground, tmp_path, texts, family="llama"):
    words = ["--load", ground.host(family), "--adapter", tmp_path / "experts", "--output", tmp_path / "out"]
    return [str(word) for word in (*words, "--texts", texts)]


@pytest.mark.parametrize("manner", KEYS)
def test_peft_reads_the_average_and_gives_the_error_that_was_reported(
    ground, tmp_path, texts, capsys, manner
):
    made = _made(ground, tmp_path / "experts", manner)
    assert main(_words(ground, tmp_path, texts)) == 0
    said = capsys.readouterr().out
    assert f"averaged: {tmp_path / 'out'} (over 3 texts, read back)" in said
    base = AutoModelForCausalLM.from_pretrained(ground.host("llama"))
    peft = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(ground.host("llama"))
    squares = size = 0.0
    losses = [[], []]
    for text in TEXTS:
        ids = tokenizer([text], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            both = [network(input_ids=ids).logits[0].double() for network in (made.network, peft)]
        squares += (both[0] - both[1]).square().sum().item()
        size += both[0].square().sum().item()
        for one, loss in zip(both, losses):
            loss.append(torch.nn.functional.cross_entropy(one[:-1], ids[0, 1:], reduction="none"))
    relative = float(re.search(r"relative difference (\S+) ", said)[1])
    assert relative == pytest.approx((squares / size) ** 0.5, rel=0.01, abs=1e-5)
    told = re.search(r"loss: (\S+) with routers, (\S+) averaged", said)
    for number, loss in enumerate(losses, 1):
        assert float(told[number]) == pytest.approx(torch.cat(loss).mean().item(), rel=1e-4)
    assert (relative < 1e-5) == (manner in EXACT)


def test_the_average_weights_are_those_of_the_texts(ground, tmp_path, texts):
    made = _made(ground, tmp_path / "experts", "token")
    assert main(_words(ground, tmp_path, texts)) == 0
    key, attachment = next(iter(made.attachments.items()))
    seen = []
    linear = made.network.get_submodule(attachment.site.path)
    linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    tokenizer = AutoTokenizer.from_pretrained(ground.host("llama"))
    with torch.no_grad():
        for text in TEXTS:
            made.network(**tokenizer([text], return_tensors="pt"))
    factors = attachment.adapter.factors()
    weights = torch.softmax(torch.cat(seen) @ factors["router"].t(), -1).mean(0)
    expected = sum(w * factors[f"B{i}"] for i, w in enumerate(weights))
    found = read(tmp_path / "out").modules[attachment.site.path]
    ours = found.scale * found.b @ found.a
    torch.testing.assert_close(ours, 0.5 * 2.0 * expected @ factors["A"], rtol=1e-4, atol=1e-6)


def test_the_average_can_be_merged_and_the_routers_are_refused_with_a_hint_at_it(
    ground, tmp_path, texts, capsys
):
    _made(ground, tmp_path / "experts", "token")
    assert main(_words(ground, tmp_path, texts)) == 0
    capsys.readouterr()
    base = ["--load", str(ground.host("llama")), "--output", str(tmp_path / "merged")]
    assert merge([*base, "--adapter", str(tmp_path / "experts")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'hydra' weights its parts by token" in line
    assert "tools.average_router makes a LoRA of their average weights" in line
    assert merge([*base, "--adapter", str(tmp_path / "out")]) == 0
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata["averaged"] == {"texts": 3, "methods": ["hydra"]}
    assert metadata["template"] == "{question}"
    assert "extra" not in metadata


def test_a_classifier_is_compared_by_its_rows_and_keeps_its_head(ground, tmp_path, texts, capsys):
    made = _made(ground, tmp_path / "experts", "moe", "roberta", ("a", "b"))
    assert main(_words(ground, tmp_path, texts, "roberta")) == 0
    said = capsys.readouterr().out
    assert re.search(r"same prediction \(argmax\): \d of 3 positions", said)
    assert "loss" not in said
    head = read(tmp_path / "out").head
    assert set(head) == {name for name in made.network.state_dict() if name.startswith("classifier.")}


RTE = ("entailment", "not_entailment")


def _of_set(ground, tmp_path, family, *words):
    words = ("--adapter", tmp_path / "experts", "--output", tmp_path / "out", *words)
    return [str(word) for word in ("--load", ground.host(family), *words)]


def test_a_classifiers_error_is_measured_on_examples_with_labels(ground, tmp_path, capsys):
    made = _made(ground, tmp_path / "experts", "moe", "roberta", RTE)
    words = ("--dataset", "rte", "--dataset-dir", ground.rte(), "--rows", 6)
    assert main(_of_set(ground, tmp_path, "roberta", *words)) == 0
    said = capsys.readouterr().out
    assert f"averaged: {tmp_path / 'out'} (over 6 texts, read back)" in said
    base = AutoModelForSequenceClassification.from_pretrained(ground.host("roberta"), num_labels=2)
    peft = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(ground.host("roberta"))
    lines = [line.split("\t") for line in (ground.rte() / "dev.tsv").read_text().splitlines()[1:7]]
    wanted = torch.tensor([RTE.index(line[3]) for line in lines])
    told = {
        name: re.search(rf"^{name}: (\S+) with routers, (\S+) averaged", said, re.M)
        for name in ("loss", "accuracy")
    }
    for number, network in ((1, made.network), (2, peft)):
        with torch.no_grad():
            logits = torch.cat(
                [network(**tokenizer(*line[1:3], return_tensors="pt")).logits for line in lines]
            )
        loss = torch.nn.functional.cross_entropy(logits, wanted).item()
        assert float(told["loss"][number]) == pytest.approx(loss, rel=1e-4)
        assert float(told["accuracy"][number]) == pytest.approx(
            (logits.argmax(-1) == wanted).float().mean().item(), rel=1e-5
        )
    assert told["loss"][1] != told["loss"][2]


def test_a_language_models_error_is_that_of_its_targets(ground, tmp_path, capsys):
    made = _made(ground, tmp_path / "experts", "token")
    rows = [{"question": f"{n} pens?", "text": "No." * n} for n in range(1, 4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"validation": str(tmp_path / "rows.jsonl"), "prompt": "question", "response": "text"}
    (tmp_path / "run.toml").write_text(toml_text({"dataset": "local", "data": data}))
    assert main(_of_set(ground, tmp_path, "llama", "--config", tmp_path / "run.toml")) == 0
    said = capsys.readouterr().out
    tokenizer, losses = AutoTokenizer.from_pretrained(ground.host("llama")), []
    for row in rows:
        prompt, answer = (
            tokenizer(row["question"])["input_ids"],
            tokenizer(row["text"], add_special_tokens=False),
        )
        ids = torch.tensor([[*prompt, *answer["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = made.network(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="none"))
    told = re.search(r"^loss: (\S+) with routers, (\S+) averaged", said, re.M)
    assert float(told[1]) == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)
    assert told[1] != told[2]
    assert "perplexity: " in said


def test_a_data_set_that_is_not_the_adapters_is_refused(ground, tmp_path, capsys):
    _made(ground, tmp_path / "experts", "moe", "roberta", RTE)
    words = ("--dataset", "gsm8k", "--dataset-dir", ground.gsm8k())
    assert refused("tools.average_router", *_of_set(ground, tmp_path, "roberta", *words)) == [
        f"error: --dataset: gsm8k is language_modeling, {tmp_path / 'experts'} was trained for classification"
    ]
    (tmp_path / "three.tsv").write_text("text\tlabel\na\tx\nb\ty\nc\tz\n")
    (tmp_path / "run.toml").write_text(
        toml_text({"dataset": "local", "data": {"train": str(tmp_path / "three.tsv")}})
    )
    assert refused(
        "tools.average_router", *_of_set(ground, tmp_path, "roberta", "--config", tmp_path / "run.toml")
    ) == [f"error: --dataset: local has labels 3, {tmp_path / 'experts'} has 2"]


def test_texts_and_a_data_set_cannot_be_combined(ground, tmp_path, texts):
    _made(ground, tmp_path / "experts", "token")
    words = _words(ground, tmp_path, texts)
    assert refused("tools.average_router", *words, "--dataset", "gsm8k") == [
        "error: --dataset: cannot be combined with --texts"
    ]
    assert refused("tools.average_router", *words[:-2]) == [
        "error: --texts: required, unless --dataset is given"
    ]


@pytest.mark.parametrize("manner", EXACT)
def test_an_adapter_without_routers_is_merged_directly(ground, tmp_path, manner):
    _made(ground, tmp_path / "experts", manner)
    words = ["--load", ground.host("llama"), "--adapter", tmp_path / "experts"]
    assert merge([str(word) for word in (*words, "--output", tmp_path / "merged")]) == 0


def test_all_faults_are_reported_before_torch_is_imported(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    words = ["--load", "./none", "--adapter", tmp_path, "--output", tmp_path]
    assert refused("tools.average_router", *words, "--texts", tmp_path / "empty.txt") == [
        "error: --load: no file or directory 'none'",
        f"error: --adapter: '{tmp_path}' is neither an adapter (it holds no adapter_config.json) nor a run"
        " with one",
        f"error: --texts: {tmp_path / 'empty.txt'} contains no text",
        f"error: --output: '{tmp_path}' already exists and is not overwritten",
    ]
