"""Networks have the weights of their files or repeatable random ones; weights that do not fit are refused."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from model.tensors.weights import load_tensors
from tests.model.tensors.test_weights import Payload
from tests.support.backbones import FAMILIES, batch, fine_tuned, load, refused, rewrite
from tests.support.tiny import save_host


def _save(host, tensors):
    save_file(tensors, host / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_regression_has_one_output(hosts, family):
    backbone = load(hosts[family], "regression")
    assert backbone.network(**batch(backbone)).logits.shape == (2, 1)
    assert backbone.network.config.problem_type == "regression"


def test_a_head_of_another_size_is_created_again_and_named(hosts, tmp_path, caplog):
    fine_tuned(hosts["opt"], tmp_path, ("a", "b", "c"))
    with caplog.at_level(logging.WARNING, "model.network.stock_network"):
        backbone = load(tmp_path)
    assert backbone.new_modules == ("score",)
    assert "score.weight (3, 32) for (2, 32)" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_do_not_fit_the_config_are_refused(tmp_path, family):
    host = save_host(family, tmp_path)
    layers = json.loads((host / "config.json").read_text())["num_hidden_layers"]
    assert "unexpected: " in refused(load, rewrite(host, num_hidden_layers=layers - 1))
    assert "missing: " in refused(load, rewrite(host, num_hidden_layers=layers + 1))
    wider = {"ffn_dim": 96} if family == "opt" else {"intermediate_size": 96}
    assert "wrong shape: " in refused(load, rewrite(host, num_hidden_layers=layers, **wider))


def test_a_base_with_an_infinite_value_is_refused(tmp_path):
    host = save_host("opt", tmp_path)
    tensors = load_tensors(host / "model.safetensors")
    tensors["model.decoder.layers.1.fc1.weight"][0, 0] = float("inf")
    _save(host, tensors)
    assert "not finite in model.decoder.layers.1.fc1.weight" in refused(load, host)


def test_a_config_the_host_refuses_is_named(tmp_path):
    host = rewrite(save_host("opt", tmp_path), hidden_size="wide")
    assert str(host) in refused(load, host)


def test_pickle_based_weights_are_read_without_code(hosts, tmp_path):
    host = save_host("opt", tmp_path / "host")
    tensors = load_tensors(host / "model.safetensors")
    (host / "model.safetensors").unlink()
    torch.save(tensors, host / "pytorch_model.bin")
    torch.testing.assert_close(load(host).network.state_dict(), load(hosts["opt"]).network.state_dict())
    marker = tmp_path / "marker"
    torch.save({**tensors, "more": Payload(marker)}, host / "pytorch_model.bin")
    message = refused(load, host)
    assert not marker.exists()
    assert "weights_only" not in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_pickled_weights_of_another_kind_of_number_are_refused(tmp_path, dtype):
    host = save_host("bert", tmp_path)
    tensors = load_tensors(host / "model.safetensors")
    (host / "model.safetensors").unlink()
    torch.save(tensors | {"bert.embeddings.position_ids": torch.arange(4)}, host / "pytorch_model.bin")
    assert load(host).digest
    name = next(name for name in tensors if name.endswith("attention.output.LayerNorm.weight"))
    torch.save(tensors | {name: tensors[name].to(dtype)}, host / "pytorch_model.bin")
    kind = str(dtype).removeprefix("torch.")
    expected = f"{host}/pytorch_model.bin: must be floating-point numbers: {name} is {kind}"
    assert refused(load, host) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_base_is_repeatable(hosts, family):
    one, two = (load(hosts[family], pretrained=False, seed=3) for _ in range(2))
    torch.testing.assert_close(one.network.state_dict(), two.network.state_dict(), rtol=0, atol=0)
    other = load(hosts[family], pretrained=False, seed=4)
    assert one.digest == two.digest
    assert len({one.digest, other.digest, load(hosts[family]).digest}) == 3
    assert one.new_modules == one.family.heads["classification"]


def test_a_pooler_that_the_base_lacks_trains_and_is_exported(tmp_path):
    host = save_host("bert", tmp_path)
    tensors = load_tensors(host / "model.safetensors")
    _save(host, {name: value for name, value in tensors.items() if "pooler" not in name})
    backbone = load(host)
    assert backbone.new_modules == backbone.trained_modules == ("classifier", "bert.pooler")
    assert all(p.requires_grad for p in backbone.network.bert.pooler.parameters())
    assert backbone.network.bert.pooler.dense.weight.std() > 0.05
    assert backbone.network.bert.pooler.dense.bias.abs().sum() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_a_bases_head_follow_the_labels_of_the_data(hosts, tmp_path, family):
    trained = fine_tuned(hosts[family], tmp_path, ("Contradiction", "neutral", "ENTAILMENT"))
    same = load(tmp_path, labels=("contradiction", "neutral", "entailment"))
    assert (same.notes, same.order) == ((), ())
    other = load(tmp_path, labels=("entailment", "contradiction", "neutral"))
    texts = batch(trained)
    expected = trained.network(**texts).logits[:, [2, 0, 1]]
    torch.testing.assert_close(other.network(**texts).logits, expected)
    assert other.order == (2, 0, 1)
    assert "reordered by name: entailment, contradiction, neutral" in other.notes[0]
    strange = load(tmp_path, labels=("a", "b", "c"))
    torch.testing.assert_close(strange.network(**texts).logits, trained.network(**texts).logits)
    assert (
        "was trained for Contradiction, neutral, ENTAILMENT; its rows are used in this order"
        in strange.notes[0]
    )
    unnamed = load(tmp_path, labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    assert unnamed.notes == ()
    assert unnamed.network.config.id2label[2] == "ENTAILMENT"


def test_a_head_trained_for_another_problem_is_noted(hosts, tmp_path):
    fine_tuned(hosts["bert"], tmp_path, ("a", "b"))
    rewrite(tmp_path, problem_type="multi_label_classification")
    expected = "the base's head was trained for multi_label_classification; it is used for"
    assert load(tmp_path, labels=("a", "b")).notes == (f"{expected} single_label_classification",)


def test_two_different_tables_are_not_tied(tmp_path):
    host = rewrite(save_host("llama", tmp_path), tie_word_embeddings=True)
    backbone = load(host, "language_modeling")
    network = backbone.network
    assert network.get_output_embeddings().weight is not network.get_input_embeddings().weight
    assert network.config.tie_word_embeddings is False
    assert backbone.notes == ("config.json of the base ties two embeddings that differ; they are not tied",)


def test_the_reason_of_transformers_is_given_without_its_advice(tmp_path):
    host = rewrite(save_host("llama", tmp_path), rms_norm_eps="small")
    message = refused(load, host, "language_modeling")
    assert message.startswith(f"--load: '{host}' cannot be loaded: ")
    assert "rms_norm_eps" in message
    assert "\n" not in message


def test_a_word_that_transformers_does_not_know_is_named_with_its_key(tmp_path):
    host = rewrite(save_host("llama", tmp_path), hidden_act="silo")
    message = refused(load, host, "language_modeling")
    assert message.startswith(f"{host}/config.json: hidden_act: no activation 'silo', one of ")
    assert message.endswith("did you mean 'silu'?")
    rope = {"rope_theta": 1e4, "rope_type": "linnear"}
    message = refused(load, rewrite(host, hidden_act="silu", rope_parameters=rope), "language_modeling")
    assert message.endswith("rope_parameters.rope_type: transformers knows no 'linnear'")
    host = rewrite(save_host("deberta", tmp_path / "pooled"), pooler_hidden_act="gelo")
    assert "pooler_hidden_act: no activation 'gelo'" in refused(load, host)
