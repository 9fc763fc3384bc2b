"""LoRAs that PEFT puts outside the layers have PEFT's logits here."""

import peft
import pytest
import torch

from model.exchange.export import logits
from model.network.snapshot import quiet_transformers
from tests.support.exported import HOSTS, batch, load_adapter_of_peft, saved_by_peft, stock
from tests.support.runs import launch
from tests.support.tiny import save_host

FORMS = {
    "whole embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "output": {"target_modules": ["v_proj", "lm_head"]},
    "both tables": {"target_modules": ["embed_tokens", "lm_head"]},
    "pattern": {"target_modules": r".*layers\.[01]\..*(q|v)_proj"},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "all-linear": {"target_modules": "all-linear"},
}


@pytest.fixture
def bert(tmp_path):
    family, keys = HOSTS["bert"]
    return save_host(family, tmp_path / "bert", **keys)


@pytest.mark.parametrize("host", ["llama", "llama_tied"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_lora_gives_pefts_logits(tmp_path, host, form):
    base = save_host("llama", tmp_path / "base", tie_word_embeddings=host == "llama_tied")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False, **FORMS[form])
    if host == "llama_tied" and form == "whole embeddings":
        pytest.skip("PEFT writes both copies, of which only one is trained")
    expected = saved_by_peft(tmp_path / "a", base, "language_modeling", config)
    ours = load_adapter_of_peft(tmp_path / "a", base, "language_modeling")
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)
    named = [note.partition(":")[0] for note in ours.notes]
    assert set(ours.outside) <= set(named)


@pytest.mark.parametrize("targets", ["all-linear", ["query", "dense"]])
def test_the_pooler_of_bert_is_added_to_its_weight(bert, tmp_path, targets):
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, init_lora_weights=False, target_modules=targets)
    expected = saved_by_peft(tmp_path / "a", bert, "classification", config)
    # The base has no pooler: PEFT's adapter changes one that only its own process knows.
    base = tmp_path / "whole"
    with quiet_transformers():
        stock(bert, "classification").save_pretrained(base)
    for file in bert.glob("tokenizer*"):
        (base / file.name).write_bytes(file.read_bytes())
    expected = saved_by_peft(tmp_path / "b", base, "classification", config)
    ours = load_adapter_of_peft(tmp_path / "b", base, "classification")
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)
    assert ours.outside == ("bert.pooler.dense",)


def test_a_lora_outside_the_layers_is_tested_and_not_trained(ground, tmp_path, capsys):
    base = ground.host("llama")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "lm_head"])
    saved_by_peft(tmp_path / "a", base, "language_modeling", config)
    words = ["llama_lora", "gsm8k", "--load", base, "--adapter", tmp_path / "a", "--dataset-dir"]
    words += [ground.gsm8k(), "--task", "causal_language_modeling", "--dry-run"]
    assert launch("test", *words) == 0
    assert "note: lm_head: its LoRA, outside the layers, is added to the weight" in capsys.readouterr().out
    assert launch("train", *words) == 2
    assert "merge it first with tools.merge" in capsys.readouterr().err
