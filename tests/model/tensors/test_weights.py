"""The one loader takes tensors and nothing else."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from configs.runtime.faults import InputFault
from model.tensors.weights import assign, load_state_dict_file, load_tensors


class Payload:
    """Creates a file when it is unpickled without care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_value_that_is_not_finite_names_the_tensor(tmp_path, value, dtype):
    broken = torch.ones(3, 2, dtype=dtype)
    broken[1, 1] = value
    save_file({"fine": torch.ones(2), "broken": broken}, tmp_path / "a.safetensors")
    with pytest.raises(InputFault, match="a.safetensors: values that are not finite in broken$"):
        load_tensors(tmp_path / "a.safetensors")


def test_the_largest_finite_values_are_taken(tmp_path):
    content = {
        "big": torch.full((4,), torch.finfo(torch.float64).max, dtype=torch.float64),
        "n": torch.arange(3),
    }
    save_file(content, tmp_path / "a.safetensors")
    torch.testing.assert_close(load_tensors(tmp_path / "a.safetensors"), content)


def test_a_state_dict_file_is_read(tmp_path):
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "a.pt")
    torch.testing.assert_close(load_state_dict_file(tmp_path / "a.pt"), {"weight": torch.ones(2, 2)})


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"weight": torch.ones(1), "more": p}])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_payload_never_runs_and_the_message_gives_no_bad_advice(tmp_path, wrap, save):
    marker, path = tmp_path / "marker", tmp_path / "x.pt"
    save(wrap(Payload(marker)), path)
    with pytest.raises(InputFault) as caught:
        load_state_dict_file(path)
    assert not marker.exists()
    assert "x.pt" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"\x80\x04."])
def test_a_damaged_state_dict_file_is_refused(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputFault, match="x.pt"):
        load_state_dict_file(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}])
def test_only_a_table_of_tensors_is_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputFault, match="not a state dict"):
        load_state_dict_file(tmp_path / "x.pt")


def test_assign_copies_and_keeps_the_type():
    module = nn.Linear(2, 2).bfloat16()
    assign(module, {"weight": torch.eye(2), "bias": torch.ones(2)}, "here")
    assert module.weight.dtype == torch.bfloat16
    torch.testing.assert_close(module.weight.float(), torch.eye(2))


def test_assign_names_everything_that_does_not_fit_and_copies_nothing():
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(InputFault) as caught:
        assign(module, {"weight": torch.ones(3, 2), "other": torch.ones(1)}, "X.pt")
    assert caught.value.lines == (
        "X.pt: missing: bias",
        "X.pt: unexpected: other",
        "X.pt: wrong shape: weight (3, 2) for (2, 2)",
    )
    assert torch.equal(module.weight, before)


def test_assign_refuses_integers_in_place_of_floating_point_numbers():
    with pytest.raises(InputFault, match="here: wrong data type: weight int32"):
        assign(nn.Linear(2, 2), {"weight": torch.eye(2, dtype=torch.int32), "bias": torch.ones(2)}, "here")


def test_assign_accepts_a_list_of_what_may_be_missing():
    module = nn.Linear(2, 2)
    assign(module, {"weight": torch.eye(2)}, "here", allow_missing=("bias",))
    assert torch.equal(module.weight, torch.eye(2))
