"""The merged checkpoint is plain `transformers` and answers as base and adapter do."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import collect
from model.exchange.peft_format import write
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from tests.tools.words import refused
from tools.merge import main

_CLASSES = {"llama": AutoModelForCausalLM, "roberta": AutoModelForSequenceClassification}


def _adapter(ground, family, directory, metadata=None):
    """Write a random adapter, its head with it where the family classifies."""
    causal = family == "llama"
    purpose, names = ("language_modeling", ()) if causal else ("classification", ("a", "b", "c"))
    backbone = load_backbone(resolve(str(ground.host(family)), "--load"), purpose, names)
    plan = read_plan(ground.plan("merge-start", init_lora_weights=False))
    made = assemble(backbone, Plans(plan), None, 3)
    file = collect(made.network, made.attachments, made.methods, made.head, metadata or {})
    directory.mkdir(parents=True)
    kind = "CAUSAL_LM" if causal else "SEQ_CLS"
    write(directory, file, task_type=kind, base=str(ground.host(family)), dropout=0.0)
    return directory


@pytest.mark.parametrize("family", ["llama", "roberta"])
def test_the_checkpoint_answers_as_peft_does(ground, tmp_path, capsys, family):
    adapter = _adapter(ground, family, tmp_path / "run" / "adapter")
    base, output = ground.host(family), tmp_path / "merged"
    assert main(["--load", str(base), "--adapter", str(tmp_path / "run"), "--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith(
        f"merged: {output} (read back as float32, largest difference of logits "
    )
    sizes = {} if family == "llama" else {"num_labels": 3}
    tokenizer = AutoTokenizer.from_pretrained(output)
    batch = tokenizer(["The fox is in the tree."], return_tensors="pt")
    peft = PeftModel.from_pretrained(_CLASSES[family].from_pretrained(base, **sizes), adapter).eval()
    plain = _CLASSES[family].from_pretrained(output).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, peft(**batch).logits, rtol=1e-4, atol=1e-4)
        stock = _CLASSES[family].from_pretrained(base, **sizes).eval()
        assert not torch.allclose(stock(**batch).logits, plain(**batch).logits, atol=1e-3)
    assert not (output / "adapter_config.json").exists()


def test_label_names_are_kept(ground, tmp_path):
    labels = {"labels": ["no", "so", "yes"], "evaluation": {"task": "classification"}}
    adapter = _adapter(ground, "roberta", tmp_path / "adapter", labels)
    words = ["--load", ground.host("roberta"), "--adapter", adapter, "--output", tmp_path / "merged"]
    assert main([str(word) for word in words]) == 0
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert network.config.id2label == {0: "no", 1: "so", 2: "yes"}


def test_all_faults_are_reported_before_torch_is_imported(tmp_path):
    assert refused("tools.merge", "--load", "./none", "--adapter", tmp_path, "--output", tmp_path) == [
        "error: --load: no file or directory 'none'",
        f"error: --adapter: '{tmp_path}' is neither an adapter (it holds no adapter_config.json) nor a run"
        " with one",
        f"error: --output: '{tmp_path}' already exists and is not overwritten",
    ]
