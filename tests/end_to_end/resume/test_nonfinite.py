"""Numbers that are not finite and a disk that is full end a run without spoiling what it has."""

import errno
import math
import os
import resource
import signal

import pytest
import torch

from configs.runtime import files as writer
from configs.runtime.faults import NonFiniteFault
from model.tensors.checkpoint import load_checkpoint, save_checkpoint
from tests.support.killed import child
from tests.support.runs import comparable, files, fork, launch, rows, run


@pytest.fixture
def exploded(ground, tmp_path):
    """Return a function that runs with a learning rate far too high, checkpointed at every step."""

    def call(**options):
        words = ground.words(
            learning_rate=1e20,
            project_dir=tmp_path,
            project="run",
            **{"checkpoint_every_n_steps": 1, **options},
        )
        return launch(*words), tmp_path / "run"

    return call


def _checkpoints(directory):
    return {path.name: load_checkpoint(path) for path in (directory / "checkpoints").iterdir()}


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"log_every_n_steps": 1},
        {"accumulate_grad_batches": 2},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "precision": "bf16-mixed"},
        {"gradient_clip_val": 1.0},
        {"checkpoint_every_n_steps": None},
    ],
    ids=lambda options: "-".join(map(str, options)) or "plain",
)
def test_a_run_that_explodes_names_the_step(exploded, capsys, options):
    code, directory = exploded(**options)
    err = capsys.readouterr().err
    assert code == 3, err
    assert len(err.splitlines()) == 1
    assert err.startswith("error: step ")
    assert not (directory / "summary.json").exists()
    assert not (directory / "adapter").exists()
    for name, state in _checkpoints(directory).items():
        broken = [t for t in _tensors(state) if t.is_floating_point() and not t.isfinite().all()]
        assert not broken, name
    assert all(math.isfinite(loss) for loss in rows(directory).values())


def test_a_checkpoint_never_holds_what_is_not_finite(tmp_path):
    with pytest.raises(NonFiniteFault, match=r"network\.w: "):
        save_checkpoint({"state_dict": {"network.w": torch.tensor([1.0, math.nan])}}, tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


def _full_disk(monkeypatch, number):
    """Make the n-th fsync of a checkpoint fail with a full disk."""
    real, seen = os.fsync, []

    def fsync(handle):
        if os.readlink(f"/proc/self/fd/{handle}").rpartition("/")[2].startswith(".last.ckpt."):
            seen.append(handle)
            if len(seen) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(writer.os, "fsync", fsync)


def test_a_full_disk_leaves_the_checkpoint_before(ground, tmp_path, monkeypatch, capsys):
    words = ground.words(checkpoint_every_n_steps=1)
    whole = run(tmp_path / "whole", *words)
    with monkeypatch.context() as patched:
        _full_disk(patched, 3)
        assert launch(*words, "--project-dir", tmp_path, "--project", "run") == 4
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "No space left on device" in err
    directory = tmp_path / "run"
    assert not [name for name in files(directory) if name.endswith(".tmp")]
    last = directory / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["position"]["steps"] == 1
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(whole)


def _limited(words, log, most):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    child(None, 0, "", words, log)


def test_a_file_size_limit_is_a_system_fault(ground, tmp_path):
    words = [*ground.words(), "--project-dir", tmp_path, "--project", "run"]
    log = tmp_path / "log"
    assert fork(_limited, [str(word) for word in words], log, 40_000) == 4
    lines = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in log.read_text()
    assert not [name for name in files(tmp_path / "run") if name.endswith((".tmp", ".ckpt"))]
