"""Adapters are written so that every reader agrees, and read only when nothing is in doubt."""

import json
import random

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.runtime.faults import InputFault
from model.exchange.adapter_directory import extra_methods
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.factors import Factors
from model.exchange.peft_format import CONFIG, METADATA, TENSORS, PeftAdapter, largest_difference, read, write

FACTS = {"task_type": "SEQ_CLS", "base": "some/base", "dropout": 0.1}


def _factors(rank, scale=2.0, *, seed=0, wide=6, out=5):
    draw = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(rank, wide, generator=draw), torch.randn(out, rank, generator=draw), scale)


def _written(directory, modules, head=None, metadata=None, saved=()):
    write(directory, PeftAdapter(modules, head or {}, metadata or {}, saved), **FACTS)
    return json.loads((directory / CONFIG).read_text())


@pytest.fixture
def written(tmp_path):
    """Write a sound adapter without a digest and give a way to spoil its files."""
    _written(tmp_path, {"a.q_proj": _factors(2), "a.v_proj": _factors(2, seed=1)})
    (tmp_path / METADATA).unlink()

    def spoil(config=None, tensors=None):
        path = tmp_path / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
        content = load_file(tmp_path / TENSORS) | (tensors or {})
        save_file({k: v.contiguous() for k, v in content.items() if v is not None}, tmp_path / TENSORS)
        return tmp_path

    return spoil


def _refused(directory):
    with pytest.raises(InputFault) as caught:
        read(directory)
    return str(caught.value)


def test_a_uniform_adapter_is_written_as_it_is(tmp_path):
    modules = {"a.q_proj": _factors(4, 0.75), "a.v_proj": _factors(4, 0.75, seed=1)}
    config = _written(tmp_path, modules)
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (
        4,
        3,
        {},
        {},
    )
    assert type(config["lora_alpha"]) is int
    tensors = load_file(tmp_path / TENSORS)
    assert sorted(tensors) == [f"base_model.model.{m}.lora_{f}.weight" for m in modules for f in "AB"]
    for name, factors in modules.items():
        assert torch.equal(tensors[f"base_model.model.{name}.lora_A.weight"], factors.a)
        assert torch.equal(tensors[f"base_model.model.{name}.lora_B.weight"], factors.b)


@pytest.mark.parametrize(
    ("ranks", "scales"), [((4, 2), (1.0, 1.0)), ((4, 4), (2.0, 0.5)), ((1, 8), (3.0, 0.25))]
)
def test_a_mixed_adapter_has_scale_one_for_every_reader(tmp_path, ranks, scales):
    names = ("model.layers.1.q_proj", "model.layers.11.q_proj")
    modules = {n: _factors(r, s, seed=r) for n, r, s in zip(names, ranks, scales)}
    config = _written(tmp_path, modules)
    largest = max(ranks)
    assert (config["r"], config["lora_alpha"]) == (largest, largest)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["target_modules"] == sorted(names)
    tensors, file = load_file(tmp_path / TENSORS), read(tmp_path)
    for name, factors in modules.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
        assert a.shape[0] == b.shape[1] == largest
        torch.testing.assert_close(b @ a, factors.scale * factors.b @ factors.a)
        assert (file.modules[name].rank, file.modules[name].scale) == (factors.rank, 1.0)
        assert file.modules[name].a.equal(factors.a)


def test_a_compact_adapter_has_patterns_of_plain_names(tmp_path):
    names = ("model.layers.1.q_proj", "model.layers.11.q_proj")
    modules = {n: _factors(r, 3.0, seed=r) for n, r in zip(names, (2, 5))}
    write(tmp_path, PeftAdapter(modules), compact=True, **FACTS)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["rank_pattern"] == config["alpha_pattern"] == dict(zip(names, (2, 5)))
    for name, factors in read(tmp_path).modules.items():
        assert factors.rank == modules[name].rank
        torch.testing.assert_close(factors.b, 3.0 * modules[name].b)


@pytest.mark.parametrize(
    ("ranks", "word"),
    [
        ([], "must be a table"),
        ({"a.q_proj": 1}, "with a rank for each module"),
        ({"a.q_proj": 2, "a.v_proj": 9}, "a.v_proj: must be from 1 to 2, got 9"),
        ({"a.q_proj": 1, "a.v_proj": 2}, "a.q_proj: the tensors are not zero beyond rank 1"),
    ],
)
def test_ranks_that_the_tensors_do_not_have_are_refused(tmp_path, ranks, word):
    _written(tmp_path, {"a.q_proj": _factors(2), "a.v_proj": _factors(2, seed=1)})
    table = json.loads((tmp_path / METADATA).read_text())
    (tmp_path / METADATA).write_text(json.dumps(table | {"ranks": ranks}))
    assert word in _refused(tmp_path)


def test_what_peft_cannot_represent_fails_there_and_without_its_files(tmp_path):
    gates = {"layer_0/w1": Extra(Recipe("shortcut", 1, 1.0), {"G": torch.ones(2)})}
    write(tmp_path, PeftAdapter({"a.q_proj": _factors(2)}, extra=gates), **FACTS)
    with pytest.raises(KeyError, match="LORA_RESEARCH"):
        peft.PeftConfig.from_pretrained(tmp_path)
    assert not {"r", "lora_alpha"} & set(json.loads((tmp_path / CONFIG).read_text()))
    assert set(read(tmp_path).extra) == set(gates)
    (tmp_path / METADATA).unlink()
    assert f"holds no {METADATA}" in _refused(tmp_path)


def test_norms_that_shortcuts_left_behind_fail_in_peft(tmp_path):
    wiring = {"norm": "renorm", "renormed": ["layer_0/shortcut1"]}
    write(tmp_path, PeftAdapter({"a.q_proj": _factors(2)}, metadata={"shortcuts": wiring}), **FACTS)
    with pytest.raises(KeyError, match="LORA_RESEARCH"):
        peft.PeftConfig.from_pretrained(tmp_path)
    assert read(tmp_path).metadata["shortcuts"] == wiring
    assert extra_methods(read(tmp_path).metadata) == ["shortcut"]


@pytest.mark.parametrize("scales", [(2.0, 2.0), (2.0, -0.3)])
def test_what_was_written_is_read(tmp_path, scales):
    modules = {f"a.{i}": _factors(3, scale, seed=i) for i, scale in enumerate(scales)}
    head = {"classifier.dense.weight": torch.randn(2, 2), "classifier.out_proj.bias": torch.randn(2)}
    config = _written(tmp_path, modules, head, {"labels": ["a", "b"]}, ("classifier",))
    assert config["modules_to_save"] == ["classifier"]
    file = read(tmp_path)
    assert file.metadata["labels"] == ["a", "b"]
    torch.testing.assert_close(dict(file.head), head, rtol=0, atol=0)
    for name, factors in modules.items():
        ours, theirs = file.modules[name], factors
        torch.testing.assert_close(ours.scale * ours.b @ ours.a, theirs.scale * theirs.b @ theirs.a)


@pytest.mark.parametrize("saved", [(), ("score",), ("pooler", "classifier"), ("classifier", "host.pooler")])
def test_modules_saved_whole_keep_their_names_whatever_the_host_is_called(tmp_path, saved):
    head = {f"{module}.inner.dense.weight": torch.ones(1) for module in saved}
    config = _written(tmp_path, {"a.w": _factors(2)}, head, saved=saved)
    assert config["modules_to_save"] == (sorted(saved) or None)
    assert set(read(tmp_path).head) == set(head)


def test_equal_adapters_give_equal_bytes_without_a_path_of_ours(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _written(tmp_path / name, {"b.w": _factors(2), "a.w": _factors(3)}, {"score.weight": torch.ones(1)})
    for file in (CONFIG, TENSORS, METADATA):
        content = (tmp_path / "one" / file).read_bytes()
        assert content == (tmp_path / "two" / file).read_bytes()
        assert str(tmp_path).encode() not in content


def test_only_keys_that_old_releases_know_are_written(tmp_path):
    known = {"peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "bias"}
    known |= {"target_modules", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out"}
    assert set(_written(tmp_path, {"a": _factors(2)})) <= known | {"init_lora_weights", "inference_mode"}


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_the_scale_is_the_files_own(written, rslora, scale):
    file = read(written({"r": 4, "lora_alpha": 8, "use_rslora": rslora}, _ranked(4)))
    assert {factors.scale for factors in file.modules.values()} == {scale}


def _ranked(rank):
    names = [f"base_model.model.a.{m}_proj.lora_{f}.weight" for m in "qv" for f in "AB"]
    return {name: torch.ones(*((rank, 6) if name[-8] == "A" else (5, rank))) for name in names}


def test_patterns_are_read_as_peft_reads_them(written):
    tensors = _ranked(2) | {
        "base_model.model.a.v_proj.lora_A.weight": torch.ones(3, 6),
        "base_model.model.a.v_proj.lora_B.weight": torch.ones(5, 3),
    }
    file = read(
        written({"rank_pattern": {"v_proj": 3}, "alpha_pattern": {r".*\.v_proj": 9, "v_proj": 1}}, tensors)
    )
    assert (file.modules["a.v_proj"].rank, file.modules["a.v_proj"].scale) == (3, 3.0)
    assert file.modules["a.q_proj"].scale == 2.0


def test_a_rank_other_than_the_tensors_is_refused_naming_both(written):
    message = _refused(written({"r": 16}))
    assert f"{CONFIG} says r = 16" in message
    assert f"{TENSORS} holds rank 2 (A) and 2 (B)" in message


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_value_that_is_not_finite_is_refused_naming_the_tensor(written, value):
    name = "base_model.model.a.q_proj.lora_B.weight"
    broken = torch.ones(5, 2)
    broken[3, 1] = value
    assert f"values that are not finite in {name}" in _refused(written(tensors={name: broken}))


def test_a_changed_byte_is_refused(tmp_path):
    _written(tmp_path, {"a": _factors(2)})
    content = bytearray((tmp_path / TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / TENSORS).write_bytes(content)
    assert _refused(tmp_path) == f"{tmp_path / TENSORS}: its bytes are not those that {METADATA} records"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (
            {"peft_type": "IA3"},
            "peft_type: must be one of LORA, VERA, ADALORA, got 'IA3'; convert it with PEFT's save_as_lora",
        ),
        ({"use_dora": True}, "use_dora: not supported"),
        ({"lora_bias": True}, "lora_bias: not supported"),
        ({"bias": "all"}, "bias: only 'none' is supported, got 'all'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: not supported"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices: not supported"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens: not supported"),
        ({"target_parameters": ["x"]}, "target_parameters: not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: not supported, 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights: not supported, 'olora'"),
        ({"r": "2"}, "r: must be a whole number above 0, got '2'"),
        ({"r": 0}, "r: must be a whole number above 0, got 0"),
        ({"r": None}, "r: must be a whole number above 0, got None"),
        ({"lora_alpha": None}, "lora_alpha: must be a finite number, got None"),
        ({"lora_alpha": float("nan")}, "lora_alpha: must be a finite number, got nan"),
        ({"rank_pattern": [1]}, "rank_pattern: must be a table of patterns, got [1]"),
        ({"rank_pattern": {"q": "2"}}, "rank_pattern: q: must be a whole number above 0, got '2'"),
        ({"alpha_pattern": {"(": 2}}, "alpha_pattern: (: no valid pattern"),
    ],
)
def test_a_config_that_means_something_else_is_refused(written, changes, word):
    directory = written(changes)
    message = _refused(directory)
    assert message.startswith(f"{directory / CONFIG}: ")
    assert word in message


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal"])
def test_starts_that_leave_the_base_alone_are_taken(written, start):
    assert read(written({"init_lora_weights": start})).modules


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        ({"model.a.lora_A.weight": torch.ones(2, 6)}, "tensor model.a.lora_A.weight: not of PEFT's form"),
        ({"base_model.model.a.lora_magnitude_vector": torch.ones(2)}, "no part of a plain LoRA"),
        ({"base_model.model.e.lora_embedding_A": torch.ones(2, 6)}, "e: needs lora_A and lora_B, has ['B']"),
        ({"base_model.model.a.q_proj.lora_A.weight": None}, "a.q_proj: needs lora_A and lora_B, has ['B']"),
        (
            {"base_model.model.a.q_proj.lora_A.weight": torch.ones(2)},
            "a.q_proj: lora_A and lora_B must be matrices",
        ),
        (
            {"base_model.model.a.q_proj.lora_B.weight": torch.ones(5, 2, dtype=torch.int32)},
            "a.q_proj: lora_A and lora_B must be matrices",
        ),
    ],
)
def test_tensors_that_are_no_plain_lora_are_refused(written, tensors, word):
    assert word in _refused(written(tensors=tensors))


def test_a_file_without_factors_is_refused(written):
    names = _ranked(1)
    directory = written(tensors={"base_model.model.score.weight": torch.ones(1), **dict.fromkeys(names)})
    assert _refused(directory) == f"{directory / TENSORS}: holds no LoRA tensor"


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_missing_file_is_named(written, name):
    directory = written()
    (directory / name).unlink()
    assert str(directory) in _refused(directory)
    assert name in _refused(directory)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        (CONFIG, "", "is empty"),
        (CONFIG, "[" * 100_000, "not valid JSON"),
        (CONFIG, "[]", "JSON object"),
        (CONFIG, '{"r": 2, "r": 4}', "r: occurs twice"),
        (METADATA, "", "not valid JSON"),
        (METADATA, "[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_table_is_named(written, name, text, word):
    directory = written()
    (directory / name).write_text(text)
    message = _refused(directory)
    assert message.startswith(f"{directory / name}: ")
    assert word in message


def test_spoilt_files_give_a_result_or_the_programs_own_refusal(written):
    directory, choose = (
        written({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 4.0}}),
        random.Random(0),
    )
    for name in (CONFIG, TENSORS):
        whole = (directory / name).read_bytes()
        for _ in range(150):
            content = bytearray(whole)
            for _ in range(choose.randint(1, 3)):
                content[choose.randrange(len(content))] = choose.choice(
                    b'0123456789"{}[],:.-eE nulltrueA\xff\x00'
                )
            (directory / name).write_bytes(content)
            try:
                read(directory)
            except InputFault as refusal:
                assert str(refusal)
        (directory / name).write_bytes(whole)


def test_the_largest_difference_is_relative():
    assert largest_difference(torch.tensor([4.0, -8.0]), torch.tensor([5.0, -8.0])) == 0.125
    assert largest_difference(torch.zeros(2), torch.zeros(2)) == 0.0
