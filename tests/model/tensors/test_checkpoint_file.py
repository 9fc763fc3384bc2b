"""A checkpoint's file is checked without torch: a run that cannot go on is refused at once."""

import subprocess
import sys

import pytest
import torch

from configs.runtime.faults import InputFault
from model.tensors.checkpoint import save_checkpoint
from model.tensors.checkpoint_file import checkpoint_tree
from tests.support.tree import ROOT


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint({"a": 1, "b": torch.ones(3)}, path)
    return path


def test_a_whole_file_gives_its_tree_with_tensors_by_name(checkpoint):
    assert checkpoint_tree(checkpoint) == {"dict": [["a", 1], ["b", {"tensor": "state.b"}]]}


def test_a_changed_and_a_shortened_file_are_refused(checkpoint):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputFault, match="its content has changed"):
        checkpoint_tree(checkpoint)
    checkpoint.write_bytes(content[:-2])
    with pytest.raises(InputFault, match=str(checkpoint)):
        checkpoint_tree(checkpoint)


def test_it_needs_no_torch(checkpoint):
    code = (
        "import sys, pathlib; from model.tensors.checkpoint_file import checkpoint_tree;"
        f" checkpoint_tree(pathlib.Path({str(checkpoint)!r})); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
