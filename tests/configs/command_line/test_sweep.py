"""A run per seed: commands, going on, refusals, exit codes, signals, with a program that only pretends."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.command_line import sweep
from configs.command_line.config_file import config_text
from configs.runs.run_directory import RunDirectory
from configs.runtime.faults import EndedEarlier, InputFault, Stopped

ROOT = Path(__file__).resolve().parents[3]
PRETENDER = """
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
place = pathlib.Path("outputs")
with open("calls.txt", "a") as log:
    log.write(" ".join(words) + chr(10))
if "--resume-training" in words:
    run = pathlib.Path(words[words.index("--load") + 1]).parent.parent
else:
    run = place / words[words.index("--project") + 1]
    run.mkdir(parents=True)
    (run / "config.toml").write_text(pathlib.Path(f"config{run.name[-1]}.toml").read_text())
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_text("")
seed = run.name[-1]
trouble = pathlib.Path(f"trouble{seed}")
if trouble.exists():
    what = trouble.read_text()
    trouble.unlink()
    if what == "wait":
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
        (run / "waiting").write_text("")
        time.sleep(30)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(what))
metric = {"name": "val/accuracy", "split": "validation", "best_step": 2}
summary = {"metric": metric, "metrics": {"val/accuracy": int(seed) / 4}, "steps": 2}
(run / "summary.json").write_text(json.dumps({**summary, "trainable_parameters": {"total": 9}}))
"""
WORDS = ("--seeds", "0,1,2", "--project", "mine")


@pytest.fixture
def ready(bound, here):
    """Return a function that runs a sweep of the pretender; the records of a run are prepared for it."""
    (here / "program.py").write_text(PRETENDER)

    def go(*words):
        typed = ["train", "opt_lora", "mrpc", "--lora-config", "lora.toml", *words]
        done = bound(*words)
        for seed in done.options.seeds:
            options = dataclasses.replace(done.options, seed=seed, seeds=None)
            text = config_text(dataclasses.replace(done, options=options))
            (here / f"config{seed}.toml").write_text(text)
        for run in (here / "outputs").glob("*"):
            (run / "lora.toml").write_bytes((here / "lora.toml").read_bytes())
        return sweep.run(done, typed, here / "program.py")

    return go


def _calls(here):
    return (here / "calls.txt").read_text().splitlines()


def test_each_seed_gets_its_own_ordinary_command_and_the_table_follows(ready, here, capfd):
    assert ready("--batch-size=3", "--seeds=0,2", "--project", "mine") == 0
    head = "train opt_lora mrpc --lora-config lora.toml --batch-size=3"
    assert _calls(here) == [f"{head} --seed {k} --project mine-seed{k}" for k in (0, 2)]
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == f"seed 0 (1 of 2): {here / 'outputs' / 'mine-seed0'}"
    assert re.fullmatch(r"seed 2 \(2 of 2\): .*mine-seed2, about \d+ s left", lines[1])
    assert lines[-2].split() == [
        "mean",
        "±",
        "sd",
        "of",
        "2",
        "0.25",
        "±",
        "0.35",
        "2",
        "±",
        "0",
        "2",
        "±",
        "0",
    ]


def test_a_list_in_a_toml_is_set_aside_for_each_run_and_the_name_is_automatic(ready, here):
    (here / "run.toml").write_text("seeds = [4]\nbatch_size = 3\n")
    assert ready("--config", "run.toml") == 0
    assert _calls(here)[0].endswith("--seeds NA --seed 4 --project opt_lora_classification_mrpc-seed4")


def test_a_failing_seed_stops_the_sweep_and_the_same_command_goes_on(ready, here, capfd):
    (here / "trouble1").write_text("3")
    with pytest.raises(EndedEarlier) as end:
        ready(*WORDS)
    place = here / "outputs" / "mine-seed1"
    assert end.value.exit_code == 3
    expected = f"--seeds: seed 1 ended with exit code 3: {place}; the same command resumes from there"
    assert end.value.lines == (expected,)
    assert len(_calls(here)) == 2
    assert ready(*WORDS) == 0
    resumed, begun = _calls(here)[2:]
    checkpoint = place / "checkpoints" / "last.ckpt"
    assert resumed.startswith(f"train --resume-training --load {checkpoint} --load-type pl")
    assert begun.endswith("--seed 2 --project mine-seed2")
    assert f"seed 0 (1 of 3): complete: {here / 'outputs' / 'mine-seed0'}" in capfd.readouterr().out
    assert ready(*WORDS) == 0
    assert len(_calls(here)) == 4


def test_a_killed_run_gives_its_signals_code(ready, here):
    (here / "trouble0").write_text("die")
    with pytest.raises(EndedEarlier) as end:
        ready(*WORDS)
    assert end.value.exit_code == 137


def test_another_experiment_is_not_gone_on_with(ready, here):
    assert ready(*WORDS) == 0
    with pytest.raises(InputFault) as refusal:
        ready(*WORDS, "--learning-rate", "0.5")
    assert len(refusal.value.lines) == 3
    assert refusal.value.lines[0] == (
        f"--seeds: {here / 'outputs' / 'mine-seed0'}: learning_rate: the run began with 0.0001, got 0.5;"
        " give another --project"
    )
    assert ready(*WORDS, "--num-workers", "1") == 0
    assert len(_calls(here)) == 3


def test_a_changed_plan_is_another_experiment(ready, bound, here):
    assert ready(*WORDS) == 0
    (here / "lora.toml").write_text("# changed")
    with pytest.raises(InputFault, match="lora_config: the content of the file differs"):
        sweep.legs(bound(*WORDS), ())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "exists and is not a run directory; remove it, or give another --project"),
        (["config.toml"], "has no checkpoint to resume from and is not overwritten"),
    ],
)
def test_a_directory_with_nothing_to_go_on_from_is_refused(ready, here, files, message):
    assert ready(*WORDS) == 0
    place = here / "outputs" / "mine-seed1"
    for path in [*place.rglob("*")]:
        if path.is_file() and path.name not in (*files, "lora.toml"):
            path.unlink()
    with pytest.raises(InputFault) as refusal:
        ready(*WORDS)
    assert [message in line for line in refusal.value.lines] == [True]
    assert len(_calls(here)) == 3


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "RANK"])
def test_a_launched_group_of_processes_is_refused(ready, monkeypatch, name):
    for variable in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv(name, "1" if name == "RANK" else "2")
    with pytest.raises(InputFault, match="launch it per seed"):
        ready(*WORDS, "--num-devices", "2")


def test_a_signal_between_two_runs_begins_no_other(here):
    leg = sweep.Leg(4, RunDirectory(here), ())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as end, sweep._Relay() as relay:
        signal.raise_signal(signal.SIGTERM)
        relay.call(leg, ["no such program"])
    assert (end.value.exit_code, str(end.value)) == (143, "stopped by signal 15 in the sweep, at seed 4")
    assert signal.getsignal(signal.SIGTERM) is before


def _in_background(here, words):
    """Start a sweep of the pretender in a process of its own and wait until seed 1 is going."""
    (here / "trouble1").write_text("wait")
    program = (
        "import sys, pathlib\nfrom configs.command_line import sweep\n"
        "from configs.runtime import console, kinds\nfrom configs.command_line.cli import parse\n"
        f"words = ['train', 'opt_lora', 'mrpc', '--lora-config', 'lora.toml', *{words!r}]\n"
        f"try: code = sweep.run(parse(words), words, pathlib.Path('program.py'))\n"
        f"except BaseException as error: code = console.report(error)\nsys.exit(code)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=-1
    )
    mark, end = here / "outputs" / "mine-seed1" / "waiting", time.monotonic() + 30
    while not mark.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_a_signal_is_handed_on_and_its_code_comes_back(ready, here):
    (here / "config0.toml").write_text("seed = 0\n")
    (here / "config1.toml").write_text("seed = 1\n")
    process = _in_background(here, WORDS)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 143
    assert errors.startswith("error: --seeds: seed 1 ended with exit code 143: ")
    assert len(_calls(here)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_sweep_takes_its_run_with_it(ready, here):
    for seed in (0, 1):
        (here / f"config{seed}.toml").write_text(f"seed = {seed}\n")
    process = _in_background(here, WORDS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    (child,) = children.read_text().split()
    process.kill()
    process.communicate(timeout=30)
    end = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "\nState:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
