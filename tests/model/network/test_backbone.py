"""Backbones come frozen, with the right head, the same every time, and wrong ones are refused."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from model.network.backbone import load_backbone, load_from_state_dict, max_tokens
from model.network.snapshot import quiet_transformers
from model.network.source import resolve
from model.tensors.weights import load_tensors
from tests.model.tensors.test_weights import Payload
from tests.support.tiny import save_host

FAMILIES = ("bert", "llama", "opt", "roberta")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    return {family: save_host(family, root / family) for family in FAMILIES}


def _load(directory, objective="classification", labels=None, **options):
    labels = ("no", "yes") if labels is None and objective == "classification" else labels or ()
    return load_backbone(resolve(str(directory), "--load"), objective, labels, **options)


def _refused(function, *arguments, **options):
    with pytest.raises(InputFault) as caught:
        function(*arguments, **options)
    return str(caught.value)


def _batch(backbone):
    return backbone.tokenizer(["a", "bcd ef"], padding=True, return_tensors="pt")


def _rewrite(host, **changes):
    path = host / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return host


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_new_head_trains(hosts, family):
    backbone = _load(hosts[family], labels=("a", "b", "c"))
    heads = backbone.family.heads["classification"]
    assert backbone.new_modules == backbone.trained_modules == heads
    trained = [name for name, p in backbone.network.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.startswith(tuple(f"{head}." for head in heads)) for name in trained)
    assert backbone.network(**_batch(backbone)).logits.shape == (2, 3)
    assert backbone.network.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert not backbone.network.training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_is_the_file_and_the_head_depends_on_the_seed_alone(hosts, family):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = _load(hosts[family], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    two, three = _load(hosts[family], seed=1), _load(hosts[family], seed=2)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_regression_has_one_output(hosts, family):
    backbone = _load(hosts[family], "regression")
    assert backbone.network(**_batch(backbone)).logits.shape == (2, 1)
    assert backbone.network.config.problem_type == "regression"


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_a_language_model_trains_no_head(hosts, family):
    backbone = _load(hosts[family], "language_modeling")
    assert backbone.new_modules == backbone.trained_modules == ()
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert backbone.network(**_batch(backbone)).logits.shape[-1] == backbone.network.config.vocab_size


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_base_is_repeatable(hosts, family):
    one, two = (_load(hosts[family], pretrained=False, seed=3) for _ in range(2))
    torch.testing.assert_close(one.network.state_dict(), two.network.state_dict(), rtol=0, atol=0)
    other = _load(hosts[family], pretrained=False, seed=4)
    assert one.digest == two.digest
    assert len({one.digest, other.digest, _load(hosts[family]).digest}) == 3
    assert one.new_modules == one.family.heads["classification"]


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_base_has_a_float32_head(hosts, family, pretrained):
    backbone = _load(hosts[family], base_dtype="bfloat16", pretrained=pretrained)
    full = _load(hosts[family], pretrained=pretrained)
    for parameter in backbone.network.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)
    logits = backbone.network(**_batch(backbone)).logits
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert list(backbone.network.state_dict()) == list(full.network.state_dict())
    torch.testing.assert_close(logits, full.network(**_batch(full)).logits, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_by_plain_products_agrees_with_the_networks_own(hosts, family):
    own, eager = _load(hosts[family]), _load(hosts[family], attention="eager")
    assert eager.network.config._attn_implementation == "eager"
    outputs = [one.network.eval()(**_batch(one)).logits for one in (own, eager)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_a_pooler_that_the_base_lacks_trains_and_travels(tmp_path):
    host = save_host("bert", tmp_path)
    tensors = load_tensors(host / "model.safetensors")
    _save(host, {name: value for name, value in tensors.items() if "pooler" not in name})
    backbone = _load(host)
    assert backbone.new_modules == backbone.trained_modules == ("classifier", "bert.pooler")
    assert all(p.requires_grad for p in backbone.network.bert.pooler.parameters())
    assert backbone.network.bert.pooler.dense.weight.std() > 0.05
    assert backbone.network.bert.pooler.dense.bias.abs().sum() == 0


def _save(host, tensors):
    save_file(tensors, host / "model.safetensors", metadata={"format": "pt"})


def _fine_tuned(host, directory, labels):
    backbone = _load(host, labels=labels)
    with quiet_transformers():
        backbone.network.save_pretrained(directory)
        backbone.tokenizer.save_pretrained(directory)
    return backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_head_is_kept_and_trains(hosts, tmp_path, family):
    saved = _fine_tuned(hosts[family], tmp_path, ("a", "b"))
    backbone = _load(tmp_path, seed=9)
    assert backbone.new_modules == ()
    assert backbone.trained_modules == backbone.family.heads["classification"]
    torch.testing.assert_close(backbone.network.state_dict(), saved.network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_head_is_not_rounded_by_a_bfloat16_base(hosts, tmp_path, family):
    saved = _fine_tuned(hosts[family], tmp_path, ("a", "b"))
    backbone = _load(tmp_path, base_dtype="bfloat16")
    for name in backbone.trained_modules:
        ours, theirs = backbone.network.get_submodule(name), saved.network.get_submodule(name)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_a_head_of_another_size_is_made_anew_and_named(hosts, tmp_path, caplog):
    _fine_tuned(hosts["opt"], tmp_path, ("a", "b", "c"))
    with caplog.at_level(logging.WARNING, "model.network.stock_network"):
        backbone = _load(tmp_path)
    assert backbone.new_modules == ("score",)
    assert "score.weight (3, 32) for (2, 32)" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, family):
    host = save_host(family, tmp_path)
    layers = json.loads((host / "config.json").read_text())["num_hidden_layers"]
    assert "unexpected: " in _refused(_load, _rewrite(host, num_hidden_layers=layers - 1))
    assert "missing: " in _refused(_load, _rewrite(host, num_hidden_layers=layers + 1))
    wider = {"ffn_dim": 96} if family == "opt" else {"intermediate_size": 96}
    assert "wrong shape: " in _refused(_load, _rewrite(host, num_hidden_layers=layers, **wider))


def test_a_base_with_an_infinite_value_is_refused(tmp_path):
    host = save_host("opt", tmp_path)
    tensors = load_tensors(host / "model.safetensors")
    tensors["model.decoder.layers.1.fc1.weight"][0, 0] = float("inf")
    _save(host, tensors)
    assert "not finite in model.decoder.layers.1.fc1.weight" in _refused(_load, host)


def test_another_family_and_an_unserved_objective_are_refused(hosts):
    message = _refused(_load, hosts["llama"], expected="opt")
    assert message.startswith("--model: expects a opt network, but")
    assert "(model_type llama)" in message
    assert "does not serve language_modeling" in _refused(_load, hosts["bert"], "language_modeling")
    assert set(FAMILIES) <= set(kinds.names(kinds.FAMILIES))


def test_a_config_the_host_refuses_is_named(tmp_path):
    host = _rewrite(save_host("opt", tmp_path), hidden_size="wide")
    assert str(host) in _refused(_load, host)


def test_pickle_based_weights_are_read_without_code(hosts, tmp_path):
    host = save_host("opt", tmp_path / "host")
    tensors = load_tensors(host / "model.safetensors")
    (host / "model.safetensors").unlink()
    torch.save(tensors, host / "pytorch_model.bin")
    torch.testing.assert_close(_load(host).network.state_dict(), _load(hosts["opt"]).network.state_dict())
    marker = tmp_path / "marker"
    torch.save({**tensors, "more": Payload(marker)}, host / "pytorch_model.bin")
    message = _refused(_load, host)
    assert not marker.exists()
    assert "weights_only" not in message


def test_a_decoder_without_a_pad_token_pads_with_its_end(tmp_path):
    host = _rewrite(save_host("llama", tmp_path), pad_token_id=None)
    settings = json.loads((host / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    (host / "tokenizer_config.json").write_text(json.dumps(settings))
    backbone = _load(host)
    assert backbone.tokenizer.pad_token == "</s>"
    assert backbone.network.config.pad_token_id == backbone.tokenizer.pad_token_id == 2
    assert backbone.network(**_batch(backbone)).logits.shape == (2, 2)


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path):
    small = save_host("llama", tmp_path / "small", vocab_size=200)
    assert "the network has 200 embeddings" in _refused(_load, small)
    other = save_host("roberta", tmp_path / "other", pad_token_id=3, max_position_embeddings=132)
    assert "pads with id 1, config.json says 3" in _refused(_load, other)


def test_the_longest_input(hosts):
    backbone = _load(hosts["opt"])
    assert max_tokens(backbone, 512, given=False) == 128
    assert max_tokens(backbone, 64, given=True) == 64
    assert max_tokens(backbone, 0, given=True) == max_tokens(backbone, -1, given=False) == 128
    message = _refused(max_tokens, backbone, 129, given=True)
    assert message == "--max-token-len: the network takes at most 128 tokens, got 129"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_dict_file_replaces_all_weights(hosts, tmp_path, family):
    trained = _load(hosts[family], seed=7).network
    torch.save(trained.state_dict(), tmp_path / "x.pt")
    base = _load(hosts[family], pretrained=False, seed=8)
    loaded = load_from_state_dict(base, tmp_path / "x.pt")
    torch.testing.assert_close(loaded.network.state_dict(), trained.state_dict(), rtol=0, atol=0)
    assert loaded.new_modules == ()
    assert loaded.digest != base.digest
    torch.save({"wrong": torch.ones(1)}, tmp_path / "x.pt")
    assert "unexpected: wrong" in _refused(load_from_state_dict, base, tmp_path / "x.pt")


def test_a_tied_language_model_takes_a_state_dict_without_its_head(tmp_path):
    host = save_host("llama", tmp_path, tie_word_embeddings=True)
    base = _load(host, "language_modeling")
    state = {name: value for name, value in base.network.state_dict().items() if name != "lm_head.weight"}
    torch.save(state, tmp_path / "x.pt")
    load_from_state_dict(base, tmp_path / "x.pt")


def test_a_directory_without_tokenizer_loads_without_one(tmp_path):
    host = save_host("opt", tmp_path)
    (host / "tokenizer.json").unlink()
    assert _load(host).tokenizer is None
