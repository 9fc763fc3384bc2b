"""A checkpoint comes back as it was, or is refused; the old one goes only for a whole new one."""

import errno
import hashlib
import json
import math
import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from configs.runtime.faults import InputFault, NonFiniteFault
from model.tensors import checkpoint
from model.tensors.checkpoint import FORMAT, RunCheckpointIO, load_checkpoint, load_run, save_checkpoint
from model.tensors.random_state import random_states, restore_random_states


def _state():
    return {
        "state_dict": {"a.A": torch.randn(3, 2), "a.B": torch.randn(2, dtype=torch.float64)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "lr": [1e-3, 0.1 + 0.2]}],
        "half": torch.randn(4).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "whole": torch.tensor(7),
        "best": -math.inf,
        "tuples": (1, (2.5, "x"), [None, True], ()),
        "numpy": (np.arange(4, dtype=np.uint32), np.float64(0.1), np.int64(3)),
        1: {"keys": {"1": "text", 1: "number", None: 0, 2.5: 1}},
        "words": 'Ä "quoted"\n\x00',
    }


def _same(one, two):
    assert type(one) is type(two) or isinstance(one, np.generic)
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert torch.equal(one, two)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    elif isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            _same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for ours, theirs in zip(one, two):
            _same(ours, theirs)
    else:
        assert one == two


def test_nested_states_come_back_as_they_were(tmp_path):
    state, path = _state(), tmp_path / "last.ckpt"
    save_checkpoint(state, path)
    _same(state, load_checkpoint(path))
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_not_a_number_as_a_plain_value_comes_back(tmp_path):
    save_checkpoint({"best": math.nan, "tensor": torch.tensor(math.inf)}, tmp_path / "a")
    loaded = load_checkpoint(tmp_path / "a")
    assert math.isnan(loaded["best"])
    assert loaded["tensor"] == math.inf


def test_equal_states_give_equal_bytes(tmp_path):
    state = _state()
    for name in ("a", "b"):
        save_checkpoint(state, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_similar_names_are_not_confused(tmp_path):
    state = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}, 1: torch.tensor(3), "1": torch.tensor(4)}
    save_checkpoint(state, tmp_path / "a")
    _same(state, load_checkpoint(tmp_path / "a"))


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, b"bytes", 1j])
def test_values_that_are_neither_plain_nor_tensors_are_refused(tmp_path, value):
    with pytest.raises(TypeError, match=f"plain values and tensors, not {type(value).__name__}"):
        save_checkpoint({"x": [value]}, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def _small(path):
    save_checkpoint({"state_dict": {"w": torch.ones(2, 3)}, "lr": 1e-05, "x": [1, -2.5, None]}, path)
    return path.read_bytes()


def test_any_changed_byte_is_noticed(tmp_path):
    whole, path, choose = _small(tmp_path / "a"), tmp_path / "b", random.Random(0)
    for place in range(len(whole)):
        changes = {whole[place] ^ 1 << choose.randrange(8), choose.choice(b" \t\n0eEIF")} - {whole[place]}
        for byte in changes:
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            with pytest.raises(InputFault):
                load_checkpoint(path)


def test_a_cut_or_lengthened_file_is_refused(tmp_path):
    whole, path = _small(tmp_path / "a"), tmp_path / "b"
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputFault, match=r"b: .*"):
            load_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputFault, match="b: "):
        load_checkpoint(path)


def test_a_pytorch_archive_is_refused_and_the_alternatives_are_named(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "old.ckpt")
    with pytest.raises(InputFault, match="old.ckpt: is a PyTorch archive, not a checkpoint") as refusal:
        load_checkpoint(tmp_path / "old.ckpt")
    assert "--load-type pt" in str(refusal.value) and "--adapter" in str(refusal.value)


def test_foreign_files_are_refused(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(
        InputFault, match="plain.safetensors: is a safetensors file, but not a checkpoint of this project"
    ):
        load_checkpoint(tmp_path / "plain.safetensors")
    for number, text in enumerate(("", "[]", "{}", "null", '{"format": 2, "sha256": null, "state": {}}')):
        save_file({"w": torch.ones(2)}, tmp_path / f"{number}", metadata={"run": text})
        with pytest.raises(InputFault, match=rf"/{number}: its "):
            load_checkpoint(tmp_path / f"{number}")
    save_file({}, tmp_path / "new", metadata={"run": '{"format": 3, "sha256": "", "state": {}}'})
    with pytest.raises(InputFault, match="new: checkpoint format 3, this version reads 2"):
        load_checkpoint(tmp_path / "new")
    with pytest.raises(InputFault, match="--load: no file .*absent"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(InputFault, match="--load: no file"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["state_dict", "optimizer_states"])
def test_values_that_are_not_finite_are_refused_and_the_old_file_stays(tmp_path, value, place):
    path = tmp_path / "last.ckpt"
    before = _small(path)
    broken = {"layer.B": torch.tensor([1.0, value])}
    content = {"state_dict": broken, "optimizer_states": [{"state": {0: broken}}]}
    with pytest.raises(NonFiniteFault, match=r"layer\.B: holds a value that is not finite"):
        save_checkpoint({place: content[place]}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "write", "read back"])
def test_a_failing_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "last.ckpt"
    before = _small(path)

    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call in ("fsync", "replace"):
        monkeypatch.setattr(os, call, fail)
    elif call == "write":
        monkeypatch.setattr(type(path), "write_bytes", fail)
    else:
        monkeypatch.setattr(type(path), "read_bytes", lambda self: b"other")
    with pytest.raises(OSError):
        save_checkpoint(_state(), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert load_checkpoint(path)["lr"] == 1e-05
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_the_checkpoint_plugin_of_lightning_saves_and_loads_the_same(tmp_path):
    files, state, path = RunCheckpointIO(), _state(), tmp_path / "a.ckpt"
    files.save_checkpoint(state, path)
    _same(state, files.load_checkpoint(str(path)))
    files.remove_checkpoint(path)
    files.remove_checkpoint(path)
    assert os.listdir(tmp_path) == []


def _draws():
    return random.random(), float(np.random.rand()), torch.rand(3).tolist()


def test_random_states_survive_a_checkpoint(tmp_path):
    random.gauss(0, 1)  # leaves a second number behind, part of the state
    save_checkpoint({"random": [random_states()]}, tmp_path / "a")
    expected = _draws(), random.gauss(0, 1)
    restore_random_states(load_checkpoint(tmp_path / "a")["random"][0])
    assert (_draws(), random.gauss(0, 1)) == expected


STATE = {
    "state_dict": {"w": torch.ones(2)},
    "optimizer_states": [{}],
    "lr_schedulers": [{}],
    "callbacks": {},
    "random": [{}],
    "position": {"epoch": 0, "batches": 1, "steps": 1},
    "facts": {},
    "switches": {},
}


@pytest.mark.parametrize("name", STATE)
def test_a_checkpoint_without_a_part_is_refused_by_its_name(tmp_path, name):
    save_checkpoint(STATE, tmp_path / "whole.ckpt")
    assert set(load_run(tmp_path / "whole.ckpt")) == set(STATE)
    save_checkpoint({key: value for key, value in STATE.items() if key != name}, tmp_path / "part.ckpt")
    with pytest.raises(InputFault, match=f"part.ckpt: lacks {name}; it is not a checkpoint of a run"):
        load_run(tmp_path / "part.ckpt")


@pytest.mark.parametrize("name", ["optimizer_states", "lr_schedulers", "random"])
def test_an_empty_list_is_a_missing_part(tmp_path, name):
    save_checkpoint(STATE | {name: []}, tmp_path / "x.ckpt")
    with pytest.raises(InputFault, match=f"lacks {name};"):
        load_run(tmp_path / "x.ckpt")


def test_a_position_without_a_number_is_refused(tmp_path):
    save_checkpoint(STATE | {"position": {"epoch": 0, "batches": 1}}, tmp_path / "x.ckpt")
    with pytest.raises(InputFault, match="position: must have epoch, batches, steps"):
        load_run(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "tree", [5, None, {}, [], {"dict": 3}, {"dict": [[1, 2, 3]]}, {"tensor": "gone"}, {"x": 1}]
)
def test_a_malformed_state_is_refused(tmp_path, tree):
    text = json.dumps({"format": FORMAT, "sha256": "0" * 64, "state": tree})
    content = save({}, metadata={"run": text})
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "x.ckpt").write_bytes(content.replace(b"0" * 64, digest.encode(), 1))
    with pytest.raises(InputFault, match="x.ckpt: its state is"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_a_value_that_is_not_finite_is_refused_though_the_digest_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FINITE", ("nothing",))
    save_checkpoint(STATE | {"state_dict": {"w": torch.tensor([torch.nan])}}, tmp_path / "x.ckpt")
    monkeypatch.undo()
    with pytest.raises(InputFault, match=r"not finite in state.state_dict.w"):
        load_checkpoint(tmp_path / "x.ckpt")
