"""llama.cpp's rule: alpha over the rank of the tensor, factors only."""

from pathlib import Path

import pytest

from model.exchange.adapter_directory import AdapterFiles
from model.exchange.llama_cpp import llama_cpp_refusals
from model.tensors.safetensors_header import TensorInfo

CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}


def _files(config=(), more=(), metadata=None):
    tensors = {
        "base_model.model.q.lora_A.weight": TensorInfo("F32", (4, 6), (0, 0)),
        "base_model.model.q.lora_B.weight": TensorInfo("F32", (5, 4), (0, 0)),
    } | {name: TensorInfo("F32", (2, 2), (0, 0)) for name in more}
    return AdapterFiles(Path("here"), CONFIG | dict(config), metadata or {}, tensors)


def test_a_language_models_lora_of_one_scale_is_taken():
    assert list(llama_cpp_refusals(_files(), {"q": 2.0}, folds=False)) == []


@pytest.mark.parametrize(
    ("files", "scale", "word"),
    [
        (_files({"use_rslora": True}), 4.0, "gives q the scale 2, PEFT 4"),
        (_files({"task_type": "SEQ_CLS"}), 2.0, "language models only"),
        (_files({"use_dora": True}), 2.0, "DoRA"),
        (_files({"peft_type": "VERA"}), 2.0, "reads only LORA"),
        (_files(more=["base_model.model.lm_head.weight"]), 2.0, "takes no modules saved whole"),
        (_files(metadata={"extra": {"layer_0/w1": {"method": "hydra"}}}), 2.0, "does not support hydra"),
    ],
)
def test_what_it_refuses_is_named(files, scale, word):
    (line,) = llama_cpp_refusals(files, {"q": scale}, folds=False)
    assert line.startswith("here/")
    assert word in line


def test_a_copy_resolves_scales_and_keeps_norms():
    files = _files({"use_rslora": True}, ["base_model.model.layers.0.input_layernorm.weight"])
    assert list(llama_cpp_refusals(files, {"q": 4.0}, folds=True)) == []
