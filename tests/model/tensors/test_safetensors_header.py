"""Headers of safetensors and GGUF files are believed only when every byte is accounted for."""

import json
import random
import struct

import pytest
import torch
from safetensors.torch import save_file

from configs.runtime.faults import InputFault
from model.tensors.gguf_header import read_gguf_header
from model.tensors.safetensors_header import metadata, read_header


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.ones(2, 3), "y": torch.zeros(4, dtype=torch.bfloat16), "none": torch.zeros(0, 2)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _write(path, header, data=b""):
    text = header if type(header) is bytes else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(start, end, dtype="F32", shape=None):
    return {
        "dtype": dtype,
        "shape": [(end - start) // 4] if shape is None else shape,
        "data_offsets": [start, end],
    }


def test_a_good_file_is_described(good):
    header = read_header(good)
    assert header["x"].shape == (2, 3)
    assert header["x"].dtype == "F32"
    assert header["y"].dtype == "BF16"
    assert metadata(good) == {"format": "pt"}


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:5], lambda b: b""])
def test_a_wrong_length_names_the_file(good, change):
    good.write_bytes(change(good.read_bytes()))
    with pytest.raises(InputFault, match="a.safetensors"):
        read_header(good)


@pytest.mark.parametrize(
    ("header", "size", "words"),
    [
        ({"a": _entry(0, 8), "b": _entry(4, 12)}, 12, "b: overlaps"),
        ({"a": _entry(0, 8), "b": _entry(0, 8)}, 8, "overlaps"),
        ({"a": _entry(0, 4), "b": _entry(8, 12)}, 12, "b: leaves a gap"),
        ({"a": _entry(0, 8, shape=[3])}, 8, "takes 12 bytes, its offsets say 8"),
        ({"a": _entry(0, 8, dtype="F33")}, 8, "unknown number format 'F33'"),
        ({"a": _entry(0, 8, shape=[-2])}, 8, "invalid shape"),
        ({"a": _entry(0, 8, shape=[True, 2])}, 8, "invalid shape"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, 8, "invalid shape"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "must have dtype"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
        ([], 0, "not a JSON object"),
        (b'{"a":{},"a":{}}', 0, "'a' occurs twice"),
        (b"{", 0, "not valid JSON"),
        (b"\xff\xff", 0, "not valid JSON"),
        (b"[" * 100_000, 0, "not valid JSON"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, header, size, words):
    with pytest.raises(InputFault) as caught:
        read_header(_write(tmp_path / "bad.safetensors", header, bytes(size)))
    assert words in str(caught.value)
    assert "bad.safetensors" in str(caught.value)


def test_an_enormous_header_is_refused_unread(tmp_path):
    path = tmp_path / "big.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(InputFault, match="is truncated or not a safetensors"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputFault, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")


def gguf_bytes(architecture="llama"):
    """Return a small GGUF file with one tensor."""

    def text(word):
        return struct.pack("<Q", len(word)) + word.encode()

    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text(f"{architecture}.block_count") + struct.pack("<II", 4, 2),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 100) + text("t") * 100,
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 100) + bytes(400),
        text("short") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
    ]
    info = text("w") + struct.pack("<IQQIQ", 2, 32, 2, 2, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(fields)) + b"".join(fields) + info
    return head + bytes(-len(head) % 32) + bytes(36)


def test_a_gguf_file_is_described(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes())
    header = read_gguf_header(path)
    assert header.fields["general.architecture"] == "llama"
    assert header.fields["tokenizer.ggml.tokens"] == 100
    assert header.fields["short"] == [1, 2, 3]
    assert header.tensors == {"w": (32, 2)}


@pytest.mark.parametrize("length", [0, 3, 10, 60, -37, -1])
def test_a_cut_gguf_file_is_refused(tmp_path, length):
    path = tmp_path / "cut.gguf"
    path.write_bytes(gguf_bytes()[:length])
    with pytest.raises(InputFault, match="cut.gguf"):
        read_gguf_header(path)


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_mutated_files_give_a_result_or_our_own_error(good, tmp_path, kind):
    choose, whole = random.Random(0), good.read_bytes() if kind == "safetensors" else gguf_bytes()
    path, read = tmp_path / "mutant", read_header if kind == "safetensors" else read_gguf_header
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(choose.randint(1, 3)):
            content[choose.randrange(len(content))] = choose.randrange(256)
        path.write_bytes(content[: choose.randint(0, len(content))] if choose.random() < 0.3 else content)
        try:
            read(path)
        except InputFault as fault:
            assert str(path) in str(fault)
