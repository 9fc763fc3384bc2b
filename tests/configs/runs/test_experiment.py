"""What runs of one experiment share, and what may differ between them."""

import pytest

from configs.runs.experiment import APART, edited_files, experiment, file_digests, recorded
from configs.runtime.faults import InputFault
from configs.schema.lookup import option_specs


def test_seed_and_names_are_no_part_of_the_experiment():
    one = {"seed": 0, "project_dir": "a", "num_workers": 0, "learning_rate": 0.1, "data": {"x": 1}}
    other = one | {"seed": 1, "project_dir": "b", "num_workers": 2}
    assert experiment(one) == experiment(other) == {"learning_rate": 0.1, "data": {"x": 1}}
    assert experiment(one) != experiment(one | {"learning_rate": 0.2})
    assert experiment(one) != experiment(one | {"data": {"x": 2}})
    assert set(APART) <= set(option_specs())


def test_a_plan_is_its_bytes_and_not_its_path(tmp_path):
    plan, run = tmp_path / "plan.toml", tmp_path / "run"
    run.mkdir()
    plan.write_text("r = 1")
    (run / "lora.toml").write_text("r = 1")
    named = {"lora_config": str(plan)}
    assert experiment(named) == experiment({"lora_config": "elsewhere.toml"}, run)
    (run / "lora.toml").write_text("r = 2")
    assert experiment(named) != experiment(named, run)
    assert experiment({}) != experiment(named)


def test_a_missing_record_is_none_and_a_broken_one_is_named(tmp_path):
    assert recorded(tmp_path) is None
    (tmp_path / "config.toml").write_text("seed = 3  # default\n")
    assert recorded(tmp_path) == {"seed": 3}
    (tmp_path / "config.toml").write_text("\ufeffseed = 3\n")
    assert recorded(tmp_path) == {"seed": 3}
    (tmp_path / "config.toml").write_text("seed = \n")
    with pytest.raises(InputFault, match="config.toml: not valid TOML"):
        recorded(tmp_path)


def test_edited_and_missing_files_of_a_run_are_named(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 1\n")
    (tmp_path / "lora.toml").write_text("[default]\n")
    assert edited_files(tmp_path) == []
    digests = file_digests(tmp_path)
    assert set(digests) == {"config.toml", "lora.toml"}
    lines = [f'"{name}" = "{digest}"\n' for name, digest in digests.items()]
    (tmp_path / "run.toml").write_text("[files]\n" + "".join(lines))
    assert edited_files(tmp_path) == []
    (tmp_path / "config.toml").write_text("seed = 2\n")
    (tmp_path / "lora.toml").unlink()
    assert edited_files(tmp_path) == [
        f"{tmp_path / 'config.toml'}: was edited after the start of the run, as run.toml records; restore it",
        f"{tmp_path / 'lora.toml'}: is missing since the start of the run, as run.toml records; restore it",
    ]
