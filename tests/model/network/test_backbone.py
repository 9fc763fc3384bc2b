"""Backbones come frozen, with the right head, the same every time, and wrong ones are refused."""

import pytest
import torch

from configs.runtime import kinds
from model.network.backbone import load_from_state_dict, max_tokens
from model.tensors.weights import load_tensors
from tests.support.backbones import FAMILIES, batch, fine_tuned, load, refused
from tests.support.tiny import save_host


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_new_head_trains(hosts, family):
    backbone = load(hosts[family], labels=("a", "b", "c"))
    heads = backbone.family.heads["classification"]
    assert backbone.new_modules == backbone.trained_modules == heads
    trained = [name for name, p in backbone.network.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith(tuple(f"{head}." for head in heads)) for name in trained)
    assert backbone.network(**batch(backbone)).logits.shape == (2, 3)
    assert backbone.network.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert not backbone.network.training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_is_the_file_and_the_head_depends_on_the_seed_alone(hosts, family):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load(hosts[family], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    two, three = load(hosts[family], seed=1), load(hosts[family], seed=2)
    torch.testing.assert_close(one.network.state_dict(), two.network.state_dict(), rtol=0, atol=0)
    file = load_tensors(hosts[family] / "model.safetensors")
    prefix = one.network.base_model_prefix + "."
    for name, value in one.network.state_dict().items():
        if name.startswith(one.trained_modules):
            assert name.endswith("bias") or not torch.equal(value, three.network.state_dict()[name])
        else:
            torch.testing.assert_close(
                value, file.get(name, file.get(name.removeprefix(prefix))), rtol=0, atol=0
            )


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_language_model_trains_no_head(hosts, family):
    backbone = load(hosts[family], "language_modeling")
    assert backbone.new_modules == backbone.trained_modules == ()
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert backbone.network(**batch(backbone)).logits.shape[-1] == backbone.network.config.vocab_size


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_base_has_a_float32_head(hosts, family, pretrained):
    backbone = load(hosts[family], base_dtype="bfloat16", pretrained=pretrained)
    full = load(hosts[family], pretrained=pretrained)
    for parameter in backbone.network.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
    logits = backbone.network(**batch(backbone)).logits
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert list(backbone.network.state_dict()) == list(full.network.state_dict())
    torch.testing.assert_close(logits, full.network(**batch(full)).logits, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_by_plain_products_agrees_with_the_networks_own(hosts, family):
    own, eager = load(hosts[family]), load(hosts[family], attention="eager")
    assert eager.network.config._attn_implementation == "eager"
    outputs = [one.network.eval()(**batch(one)).logits for one in (own, eager)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_head_is_kept_and_trains(hosts, tmp_path, family):
    saved = fine_tuned(hosts[family], tmp_path, ("a", "b"))
    backbone = load(tmp_path, seed=9)
    assert backbone.new_modules == ()
    assert backbone.trained_modules == backbone.family.heads["classification"]
    torch.testing.assert_close(backbone.network.state_dict(), saved.network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_head_is_not_rounded_by_a_bfloat16_base(hosts, tmp_path, family):
    saved = fine_tuned(hosts[family], tmp_path, ("a", "b"))
    backbone = load(tmp_path, base_dtype="bfloat16")
    for name in backbone.trained_modules:
        ours, theirs = backbone.network.get_submodule(name), saved.network.get_submodule(name)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_another_family_and_an_unserved_objective_are_refused(hosts):
    message = refused(load, hosts["llama"], expected="opt")
    assert message.startswith("--model: expects a opt network, but")
    assert "(model_type llama)" in message
    assert "does not serve language_modeling" in refused(load, hosts["bert"], "language_modeling")
    assert set(FAMILIES) <= set(kinds.names(kinds.FAMILIES))


def test_the_longest_input(hosts):
    backbone = load(hosts["opt"])
    assert max_tokens(backbone, 512, given=False) == 128
    assert max_tokens(backbone, 64, given=True) == 64
    assert max_tokens(backbone, 0, given=True) == max_tokens(backbone, -1, given=False) == 128
    message = refused(max_tokens, backbone, 129, given=True)
    assert message == "--max-token-len: the network takes at most 128 tokens, got 129"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_dict_file_replaces_all_weights(hosts, tmp_path, family):
    trained = load(hosts[family], seed=7).network
    torch.save(trained.state_dict(), tmp_path / "x.pt")
    base = load(hosts[family], pretrained=False, seed=8)
    loaded = load_from_state_dict(base, tmp_path / "x.pt")
    torch.testing.assert_close(loaded.network.state_dict(), trained.state_dict(), rtol=0, atol=0)
    assert loaded.new_modules == ()
    assert loaded.digest != base.digest
    torch.save({"wrong": torch.ones(1)}, tmp_path / "x.pt")
    assert "unexpected: wrong" in refused(load_from_state_dict, base, tmp_path / "x.pt")


def test_a_tied_language_model_takes_a_state_dict_without_its_head(tmp_path):
    host = save_host("llama", tmp_path, tie_word_embeddings=True)
    base = load(host, "language_modeling")
    state = {name: value for name, value in base.network.state_dict().items() if name != "lm_head.weight"}
    torch.save(state, tmp_path / "x.pt")
    load_from_state_dict(base, tmp_path / "x.pt")


def test_a_tokenizer_that_cannot_be_loaded_is_named_as_such(tmp_path):
    host = save_host("llama", tmp_path)
    (host / "tokenizer.json").write_text('{"version": "1.0"}')
    message = refused(load, host, "language_modeling")
    assert message.startswith(f"--load: the tokenizer of '{host}' cannot be loaded: ")
