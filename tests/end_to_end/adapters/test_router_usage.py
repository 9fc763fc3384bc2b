"""Router usage is recorded by set and by type of task, over all processes, and changes nothing."""

import itertools
import json
import tomllib

import pytest

from configs.toml.writer import toml_text
from tests.support.runs import comparable, program, run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("heard")


def _instructions(path, kinds, count):
    """Write instruction records whose types go round, and return the path."""
    lines = [
        {"instruction": f"Count to {n}.", "input": "", "output": "1 2", "task_type": kind}
        for n, kind in zip(range(count), itertools.cycle(kinds))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def typed(place):
    """Return the config of a run on instructions of two types and some of none."""
    train, dev = (
        _instructions(place / f"{name}.jsonl", ("sums", "", 7), n) for name, n in (("t", 24), ("d", 7))
    )
    table = {"train": str(train), "validation": str(dev), "form": "instruction"}
    path = place / "typed.toml"
    path.write_text(toml_text({"dataset": "local", "data": table}))
    return path


@pytest.fixture(scope="module")
def words(ground):
    """Return the words of a short run with routers on the data that a config names."""

    def make(config, dataset="local", batch_size=4):
        plan = ground.plan("heard", method="hydra", heads=3)
        options = {
            "lora_config": plan,
            "config": config,
            "dataset_dir": None,
            "max_steps": 2,
            "optimizer": "sgd",
        }
        line = ground.words("llama", batch_size=batch_size, **options)
        return [*line[:2], dataset, *line[3:]]

    return make


def test_routers_are_recorded_by_type_of_task(place, words, typed):
    directory = run(place / "typed", *words(typed))
    table = tomllib.loads((directory / "search" / "router_usage.toml").read_text())
    kinds = table["types"]["validation"]
    assert list(kinds) == ["", "7", "sums"]
    whole = table["validation"]["layer_1"]["w2"]
    own = [kind["layer_1"]["w2"] for kind in kinds.values()]
    assert sum(one["tokens"] for one in own) == whole["tokens"]
    for number, weight in enumerate(whole["weights"]):
        mean = sum(one["weights"][number] * one["tokens"] for one in own) / whole["tokens"]
        assert mean == pytest.approx(weight, rel=1e-7)
    report = (directory / "report.md").read_text()
    assert "## Routers on validation, by type of task\n\n![" in report
    assert (directory / "search" / "router_types.png").read_bytes().startswith(b"\x89PNG")


def test_types_do_not_change_the_training(place, words, typed):
    plain = place / "untyped.toml"
    plain.write_text(typed.read_text() + 'task_type = "input"\n')  # which is empty everywhere
    one = run(place / "with-types", *words(typed))
    other = run(place / "without", *words(plain))
    found, expected = comparable(other), comparable(one)
    assert not (other / "search" / "router_types.png").exists()
    assert "types" not in tomllib.loads((other / "search" / "router_usage.toml").read_text())
    for name in ("metrics.csv", "adapter/extra.safetensors", "adapter/adapter_model.safetensors"):
        assert found[name] == expected[name]


@pytest.mark.slow
def test_two_processes_record_the_router_usage_of_one(place, words, typed):
    few = _instructions(place / "few.jsonl", ("sums",), 1)  # the second process has no batch of it
    entry = tomllib.loads(typed.read_text())["data"]
    mix = [
        {"dataset": "local", "name": "all", **entry},
        {"dataset": "local", "name": "few", **entry, "validation": str(few)},
    ]
    config = place / "typed-mix.toml"
    config.write_text(toml_text({"dataset": "mix", "data": {"mix": mix}}))
    one = run(place / "hear-one", *words(config, "mix"))
    two = ("--num-devices", 2, "--accelerator", "cpu")
    done = program(*words(config, "mix", 2), *two, "--project-dir", place, "--project", "hear-two")
    assert done.returncode == 0, done.stderr
    found, expected = (
        tomllib.loads((directory / "search" / "router_usage.toml").read_text())
        for directory in (place / "hear-two", one)
    )
    names = ("validation_all", "validation_few")
    assert list(expected) == list(found) == [*names, "types"]
    for name in names:
        assert list(found["types"][name]) == list(expected["types"][name])
        _alike(found[name], expected[name])
        for kind, tables in expected["types"][name].items():
            _alike(found["types"][name][kind], tables)
    assert list(found["types"]["validation_few"]) == ["sums"]


def _alike(found, expected):
    """Compare tables of layers and roles: tokens are equal, weights and entropies but for rounding."""
    assert {layer: list(roles) for layer, roles in found.items()} == {
        layer: list(roles) for layer, roles in expected.items()
    }
    for layer, roles in expected.items():
        for role, facts in roles.items():
            ours = found[layer][role]
            assert ours["tokens"] == facts["tokens"]
            assert ours["weights"] == pytest.approx(facts["weights"], abs=1e-4)
            assert ours["entropy"] == pytest.approx(facts["entropy"], abs=1e-4)
