"""A network's files are checked before the heavy libraries are imported, and what is wrong is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.runtime.faults import InputFault
from model.network.source import resolve
from model.network.source_files import (
    check_source,
    digest_of,
    family_of,
    read_config,
    require_memory,
    weight_files,
)
from tests.model.tensors.test_safetensors_header import gguf_bytes
from tests.support.tiny import save_host

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def host(tmp_path):
    return save_host("opt", tmp_path / "host")


def _refused(function, *arguments, **options):
    with pytest.raises(InputFault) as caught:
        function(*arguments, **options)
    assert len(caught.value.lines) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "family"),
    [("llama", "llama"), ("qwen2", "qwen2"), ("gemma3", "gemma"), ("bert", "bert")],
)
def test_a_gguf_file_names_its_family_in_its_own_words(tmp_path, architecture, family):
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(architecture))
    source = resolve(str(tmp_path / "x.gguf"), "--load")
    config = read_config(source)
    assert config["num_hidden_layers"] == 2
    assert family_of(config, source).name == family


def test_a_good_host_passes_and_is_described(host):
    source = resolve(str(host), "--load")
    check_source(source)
    assert read_config(source)["model_type"] == "opt"
    assert family_of(read_config(source), source).name == "opt"
    assert weight_files(source) == (host / "model.safetensors",)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"model_type": 3}'])
def test_a_broken_config_is_named(host, content):
    (host / "config.json").write_bytes(content)
    message = _refused(check_source, resolve(str(host), "--load"))
    assert ("config.json" in message) or ("model_type" in message)


def test_an_empty_config_is_called_empty(host):
    (host / "config.json").write_bytes(b"")
    assert _refused(check_source, resolve(str(host), "--load")) == f"{host}/config.json: is empty"


def test_a_missing_config_hints_at_adapters(host):
    (host / "config.json").unlink()
    (host / "adapter_config.json").write_text("{}")
    assert "give it as --adapter" in _refused(check_source, resolve(str(host), "--load"))


def test_an_adapter_in_the_directory_of_the_network_is_refused(host):
    (host / "adapter_config.json").write_text("{}")
    assert "contains an adapter besides the network" in _refused(check_source, resolve(str(host), "--load"))


def test_an_unknown_architecture_gives_the_list(host):
    _change_config(host, model_type="lama")
    message = _refused(check_source, resolve(str(host), "--load"))
    assert "no architecture 'lama', one of bert, " in message
    assert message.endswith("did you mean 'llama'?")


def test_weights_one_byte_short_are_named(host):
    path = host / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert _refused(check_source, resolve(str(host), "--load")).startswith(f"{path}: ")
    check_source(resolve(str(host), "--load"), pretrained=False)


def test_missing_weights_and_tokenizer_are_named(host):
    (host / "model.safetensors").unlink()
    assert "contains no weights" in _refused(check_source, resolve(str(host), "--load"))
    (host / "tokenizer.json").unlink()
    assert "contains no tokenizer" in _refused(check_source, resolve(str(host), "--load"))
    check_source(resolve(str(host), "--load"), pretrained=False, tokenizer=False)


def test_a_wrong_weight_index_is_refused(host):
    (host / "model.safetensors").unlink()
    save_file({"a": torch.ones(1)}, host / "one.safetensors")
    index = host / "model.safetensors.index.json"
    source = resolve(str(host), "--load")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    check_source(source)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
    assert "has no tensor b" in _refused(check_source, source)
    index.write_text(json.dumps({"weight_map": {"a": "../host/one.safetensors"}}))
    assert "not in its directory" in _refused(check_source, source)
    index.write_text(json.dumps({"weight_map": ["a"]}))
    assert "weight_map" in _refused(check_source, source)


def test_the_digest_follows_content_alone(host, tmp_path):
    copy = save_host("opt", tmp_path / "elsewhere")
    one, two = resolve(str(host), "--load"), resolve(str(copy), "--load")
    assert digest_of(one) == digest_of(two)
    _change_config(copy, dropout=0.5)
    assert digest_of(one) != digest_of(two)
    assert digest_of(two) != digest_of(two, pretrained=False)
    save_host("opt", copy, seed=1)
    assert digest_of(one) != digest_of(two)


def test_checking_needs_no_heavy_library(host):
    code = (
        "import sys; from model.network.source import resolve; from model.network.source_files import *;"
        " s = resolve(sys.argv[1], '--load'); check_source(s);"
        "digest_of(s);"
        "assert not {'torch', 'transformers', 'safetensors', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(host)], cwd=ROOT, check=True)


def _change_config(host, **changes):
    path = host / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_integer_weights_are_refused_and_integer_buffers_are_not(host):
    tensors = {"model.decoder.embed_tokens.weight": torch.ones(4, 2)}
    save_file(tensors | {"position_ids": torch.arange(3)}, host / "model.safetensors")
    check_source(resolve(str(host), "--load"))
    save_file(tensors | {"a.weight": torch.ones(2, 2, dtype=torch.int8)}, host / "model.safetensors")
    message = _refused(check_source, resolve(str(host), "--load"))
    assert message.endswith("model.safetensors: a.weight: must be floating-point numbers, is I8")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dropout": 7.0}, "dropout: must be a number in [0, 1], got 7.0"),
        ({"attention_dropout": -1}, "attention_dropout: must be a number in [0, 1], got -1"),
        ({"init_std": float("nan")}, "init_std: must be a finite number, got nan"),
        ({"vocab_size": 10**15}, "vocab_size: must be a whole number from 1 to 100,000,000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: must be a whole number from 1 to 100,000, got 0"),
        ({"attention_dropout": None}, "attention_dropout: must be a number in [0, 1], got None"),
        ({"layerdrop": 1.5}, "layerdrop: must be a number in [0, 1], got 1.5"),
        ({"word_embed_proj_dim": [32]}, "word_embed_proj_dim: must be a whole number from 1 to 1,000,000"),
        ({"pad_token_id": 10**15}, "pad_token_id: must be less than vocab_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: must divide num_attention_heads"),
        ({"sliding_window": 10**30}, "sliding_window: must be a number of at most 64 bits"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps: must not be negative, got -1e-05"),
        (
            {"rope_parameters": {"rope_theta": 0}},
            "rope_parameters.rope_theta: must be a positive number, got 0",
        ),
        ({"rope_scaling": {"factor": float("inf")}}, "rope_scaling.factor: must be a finite number, got inf"),
        ({"hidden_size": "wide"}, "hidden_size: must be a whole number from 1 to 1,000,000, got 'wide'"),
    ],
)
def test_impossible_numbers_of_a_configuration_are_named(host, changes, word):
    path = host / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert word in _refused(check_source, resolve(str(host), "--load"))


def test_class_names_may_be_those_of_keys(host):
    _change_config(host, label2id={"dropout": 7, "vocab_size": 0}, classifier_dropout=None)
    check_source(resolve(str(host), "--load"))


def test_a_network_larger_than_the_memory_is_refused_before_it_is_built(host, monkeypatch):
    source = resolve(str(host), "--load")
    monkeypatch.setattr(os, "sysconf", lambda name: 2**20)
    require_memory(source)
    _change_config(host, vocab_size=10**8, hidden_size=10**6, word_embed_proj_dim=None)
    message = _refused(require_memory, source)
    assert message.startswith(
        f"{host}/config.json: vocab_size, hidden_size, num_hidden_layers: need at least"
    )
    assert message.endswith("GiB, this machine has 1,024.0")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_a_damaged_description_of_the_tokenizer_is_named(host, name):
    (host / name).write_text("{")
    assert _refused(check_source, resolve(str(host), "--load")).startswith(
        f"{host / name}: is not valid JSON"
    )
    check_source(resolve(str(host), "--load"), tokenizer=False)


def test_a_sentencepiece_model_alone_names_the_package(host, monkeypatch):
    (host / "tokenizer.model").write_bytes(b"x")
    monkeypatch.setattr("model.network.source_files.find_spec", lambda name: None)
    check_source(resolve(str(host), "--load"))
    for path in host.glob("tokenizer.json"):
        path.unlink()
    message = _refused(check_source, resolve(str(host), "--load"))
    assert message.startswith(f"{host / 'tokenizer.model'}: needs the package sentencepiece")
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "generation_config.json"])
def test_a_pipe_among_the_files_is_not_waited_for(host, name):
    (host / name).unlink(missing_ok=True)
    os.mkfifo(host / name)
    with pytest.raises(InputFault, match="not a regular file") as caught:
        check_source(resolve(str(host), "--load"))
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("return_dict", False), ("is_encoder_decoder", True), ("chunk_size_feed_forward", 3)]
)
def test_settings_that_no_network_here_runs_with_are_named(host, key, value):
    _change_config(host, **{key: value})
    assert f"config.json: {key}: must be " in _refused(check_source, resolve(str(host), "--load"))


def test_a_length_of_the_tokenizer_that_is_no_number_is_named(host):
    path = host / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": "x"}))
    message = _refused(check_source, resolve(str(host), "--load"))
    assert "model_max_length: must be a number, got 'x'" in message
