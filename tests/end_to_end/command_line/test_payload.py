"""Files with a payload that would create a marker: no way of loading lets it run."""

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import launch, run


class _Payload:
    """An object whose reading would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("payload")


@pytest.fixture(scope="module")
def finished(ground, place):
    return run(place / "finished", *ground.words(max_steps=1))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def refused(tmp_path, marker, capsys):
    """Call the program and expect one plain refusal, nothing written and no marker."""

    def call(*words):
        words = [*words, "--project-dir", tmp_path / "out"]
        capsys.readouterr()
        with warnings.catch_warnings(action="error"):  # they would be further lines
            assert launch(*words) == 2
        err = capsys.readouterr().err
        assert not marker.exists()
        assert not (tmp_path / "out").exists()
        assert all(line.startswith("error: ") for line in err.splitlines()), err
        for advice in ("weights_only", "trust", "allowlist", "safe_globals"):
            assert advice not in err
        return err

    return call


def _copy(host, directory, leave_out=()):
    directory.mkdir()
    for path in host.iterdir():
        if path.name not in leave_out:
            (directory / path.name).write_bytes(path.read_bytes())
    return directory


def _forms(content, marker):
    """Return the payload alone, together with valid tensors, and in the old format of torch.save."""
    payload = _Payload(marker)
    return {"alone": payload, "beside": {**content, "extra": payload}, "within": {**content, "a": [payload]}}


def _write(path, form, content, marker):
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Payload(marker)))
    elif form == "legacy":
        torch.save(_Payload(marker), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(_forms(content, marker)[form], path)


FORMS = pytest.mark.parametrize("form", ["alone", "beside", "within", "legacy", "pickle"])


def test_the_payload_works(marker):
    pickle.loads(pickle.dumps(_Payload(marker)))
    assert marker.exists()


@FORMS
def test_weights_of_a_directory(ground, tmp_path, refused, marker, form):
    host = _copy(ground.host("opt"), tmp_path / "host", {"model.safetensors"})
    tensors = load_file(ground.host("opt") / "model.safetensors")
    _write(host / "pytorch_model.bin", form, tensors, marker)
    assert str(host) in refused(*ground.words(load=host))


def test_a_shard_of_a_directory(ground, tmp_path, refused, marker):
    host = _copy(ground.host("opt"), tmp_path / "host", {"model.safetensors"})
    tensors = load_file(ground.host("opt") / "model.safetensors")
    weight_map = dict.fromkeys(tensors, "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {}, "weight_map": weight_map}
    (host / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    _write(host / "pytorch_model-00001-of-00001.bin", "beside", tensors, marker)
    assert str(host) in refused(*ground.words(load=host))


@FORMS
@pytest.mark.parametrize("ending", [".pt", ".bin", ".safetensors"])
def test_a_state_dict(ground, tmp_path, refused, marker, form, ending):
    path = tmp_path / f"weights{ending}"
    _write(path, form, load_file(ground.host("opt") / "model.safetensors"), marker)
    words = ground.words(load=path, load_type="pt", backbone_model=ground.host("opt"))
    assert str(path) in refused(*words)


@FORMS
@pytest.mark.parametrize("action", ["train", "test", "resume"])
def test_a_checkpoint(ground, finished, refused, marker, form, action):
    path = finished / "checkpoints" / f"{form}.ckpt"
    state = load_checkpoint(finished / "checkpoints" / "last.ckpt")["state_dict"]
    _write(path, form, {"state_dict": state}, marker)
    words = ["train", "--resume-training"] if action == "resume" else [action]
    if action == "train":
        words += ["opt_lora", "rte", "--dataset-dir", ground.rte()]
    words += ["--load", path, "--load-type", "pl"]
    (finished / "summary.json").rename(finished / "away.json")  # or a resumed run would be complete
    try:
        assert str(path) in refused(*words)
    finally:
        (finished / "away.json").rename(finished / "summary.json")
        path.unlink()


@FORMS
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_an_adapter(ground, finished, tmp_path, refused, marker, form, name):
    leave_out = {"adapter_model.safetensors", "metadata.json"}
    adapter = _copy(finished / "adapter", tmp_path / "adapter", leave_out)
    _write(adapter / name, form, load_file(finished / "adapter" / "adapter_model.safetensors"), marker)
    words = ["test", "opt_lora", "rte", "--load", ground.host("opt"), "--dataset-dir", ground.rte()]
    assert str(adapter) in refused(*words, "--adapter", adapter)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "vocab.json"])
def test_a_tokenizer(ground, tmp_path, refused, marker, name):
    left_out = {"tokenizer.json"}
    host = _copy(ground.host("opt"), tmp_path / "host", left_out)
    _write(host / name, "pickle", {}, marker)
    assert str(host) in refused(*ground.words(load=host))


@pytest.mark.parametrize("key", ["auto_map", "tokenizer auto_map", "optimizer", "payload files"])
def test_code_in_the_directory_of_a_network_is_not_run(ground, tmp_path, marker, key):
    """Code and pickles that other loaders would take are next to a valid network: they are not touched."""
    host = _copy(ground.host("opt"), tmp_path / "host")
    code = f"import os\nos.mkdir({str(marker)!r})\nclass Config: pass\nclass Network: pass\n"
    (host / "evil.py").write_text(code)
    (host / "modeling_opt.py").write_text(code)
    name = {"auto_map": "config.json", "tokenizer auto_map": "tokenizer_config.json"}.get(key)
    if name is not None:
        content = json.loads((host / name).read_text())
        content["auto_map"] = {
            "AutoConfig": "evil.Config",
            "AutoModelForSequenceClassification": "evil.Network",
            "AutoTokenizer": ["evil.Config", "evil.Config"],
        }
        (host / name).write_text(json.dumps(content))
    for spare in ("optimizer.pt", "training_args.bin", "pytorch_model.bin", "generation_config.bin"):
        if key == "payload files":
            (host / spare).write_bytes(pickle.dumps(_Payload(marker)))
    assert launch(*ground.words(load=host, dry_run=True)) in (0, 2)
    assert not marker.exists()


def test_a_config_is_only_text(ground, tmp_path, refused, marker):
    for name, content in {
        "pickle.toml": pickle.dumps(_Payload(marker), protocol=0),
        "code.toml": f"seed = __import__('os').mkdir({str(marker)!r})\n".encode(),
    }.items():
        path = Path(tmp_path / name)
        path.write_bytes(content)
        assert name in refused(*ground.words(config=path))
        assert name in refused(*ground.words(lora_config=path))
