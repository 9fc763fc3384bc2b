"""A sweep's run is the run that its seed alone gives."""

import tomllib

import pytest

from tests.support.runs import comparable, program, run


@pytest.mark.slow
def test_a_sweep_leaves_what_single_runs_leave(ground, tmp_path):
    words = ground.words(max_epochs=1, max_steps=2)
    place = tmp_path / "runs"
    run(place / "mine-seed0", *words, "--seed", "0")
    alone = run(place / "alone", *words, "--seed", "1")
    done = program(*words, "--project-dir", place, "--project", "mine", "--seeds", "0,1")
    assert done.returncode == 0, done.stderr
    assert f"seed 0 (1 of 2): complete: {place / 'mine-seed0'}\n" in done.stdout
    assert done.stdout.splitlines()[-2].startswith("mean ± sd of 2")
    assert comparable(place / "mine-seed1") == comparable(alone)
    assert comparable(place / "mine-seed0") != comparable(alone)
    assert sorted(path.name for path in place.iterdir()) == ["alone", "mine-seed0", "mine-seed1"]
    recorded, expected = (
        tomllib.loads((directory / "config.toml").read_text()) for directory in (place / "mine-seed1", alone)
    )
    assert recorded == expected
    assert (recorded["seed"], "seeds" in recorded) == (1, False)
