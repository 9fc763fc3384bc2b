"""One run per seed, each in its own process with the command of that seed.

A new process has no library, random, thread or device state of the seed before, so each run equals the one of
`--seed` byte for byte.
"""

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import tomli

from configs.command_line.bound import Bound
from configs.command_line.config_file import config_text
from configs.command_line.flags import SOURCE
from configs.runs.comparison import read_results, show
from configs.runs.experiment import PLANS, experiment, recorded
from configs.runs.run_directory import RunDirectory, automatic_name
from configs.runtime import console
from configs.runtime.faults import EndedEarlier, Findings, InputFault, Stopped
from configs.runtime.launcher import is_launched
from configs.schema.lookup import flags
from configs.schema.values import shown

_OWN = ("seeds", "seed", "project")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Leg:
    """One seed of a sweep.

    Args:
        seed: the seed.
        directory: its run directory.
        words: the command that starts or resumes it; None where it is finished.
    """

    seed: int
    directory: RunDirectory
    words: tuple[str, ...] | None


def run(bound: Bound, arguments: Sequence[str], program: Path) -> int:
    """Run every unfinished seed in order, print a table of all, and return the exit code.

    Args:
        bound: the checked command line.
        arguments: the command line as typed.
        program: the program's file.

    Raises:
        InputFault: before any run starts, for directories that cannot be resumed.
        EndedEarlier: with the exit code of a seed's run that failed.
        Stopped: when a signal came between two runs.
    """
    if is_launched(os.environ):
        raise InputFault(
            "--seeds: a launcher started several processes of this command; launch it per seed, with --seed"
        )
    plan = legs(bound, arguments)
    durations: list[float] = []
    with _Relay() as relay:
        for number, leg in enumerate(plan, start=1):
            head = f"seed {leg.seed} ({number} of {len(plan)}): "
            if leg.words is None:
                console.say(f"{head}complete: {leg.directory.path}")
                continue
            open_ones = sum(one.words is not None for one in plan[number - 1 :])
            console.say(f"{head}{leg.directory.path}{_outlook(durations, open_ones)}")
            begin = time.monotonic()
            relay.call(leg, [sys.executable, str(program), *leg.words])
            durations.append(time.monotonic() - begin)
    if not bound.options.dry_run:
        show(read_results([leg.directory.path for leg in plan]))
    return 0


def legs(bound: Bound, arguments: Sequence[str]) -> list[Leg]:
    """Decide for every seed whether its run is to be started, resumed, or is finished.

    Raises:
        InputFault: a line for each directory of another experiment or without a checkpoint.
    """
    findings = Findings()
    name = bound.options.project or automatic_name(bound.options)
    found = []
    for seed in bound.options.seeds or ():
        directory = RunDirectory(bound.options.project_dir / f"{name}-seed{seed}")
        found.append(findings.attempt(partial(_leg, bound, seed, directory, arguments)))
    return [findings.settled(leg) for leg in found]


def _leg(bound: Bound, seed: int, directory: RunDirectory, arguments: Sequence[str]) -> Leg:
    if not os.path.lexists(directory.path):
        return Leg(seed, directory, _beginning(bound, seed, directory.path.name, arguments))
    _require_same(bound, seed, directory.path)
    if directory.summary.exists():
        return Leg(seed, directory, None)
    if not directory.last.exists():
        raise InputFault(
            f"--seeds: {directory.path} has no checkpoint to resume from and is not overwritten;"
            " remove it, or give another --project"
        )
    options = bound.options
    words = [bound.action, "--resume-training", "--load", str(directory.last), "--load-type", "pl"]
    words += ["--num-workers", str(options.num_workers), "--log-level", options.log_level]
    words += ["--dry-run"] if options.dry_run else []
    return Leg(seed, directory, tuple(words))


def _beginning(bound: Bound, seed: int, project: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command of one seed: the given one with this seed and directory."""
    words, kept = list(arguments), []
    while words:
        word = words.pop(0)
        flag, _, value = word.partition("=")
        if flag not in flags() or flags()[flag][0].name not in _OWN:
            kept.append(word)
        elif not value:
            words.pop(0)
    kept += [] if bound.sources["seeds"] == SOURCE else ["--seeds", "NA"]  # overrides the list of a TOML
    return (*kept, "--seed", str(seed), "--project", project)


def _require_same(bound: Bound, seed: int, path: Path) -> None:
    """Refuse a directory whose run has other options than those of this sweep."""
    began = recorded(path)
    if began is None:
        raise InputFault(
            f"--seeds: {path} exists and is not a run directory; remove it, or give another --project"
        )
    options = dataclasses.replace(bound.options, seed=seed, seeds=None)
    now = experiment(tomli.loads(config_text(dataclasses.replace(bound, options=options))))
    before = experiment(began, path)
    before["seed"], now["seed"] = began.get("seed"), seed
    faults = []
    for name in sorted(now.keys() | before.keys()):
        if name not in before and bound.sources.get(name) == "default":
            continue  # an option that was added after the run
        if before.get(name) != now.get(name):
            faults.append(f"{name}: {_change(name, before.get(name), now.get(name))}")
    if faults:
        raise InputFault(*(f"--seeds: {path}: {fault}; give another --project" for fault in faults))


def _change(name: str, before: Any, now: Any) -> str:
    if name in PLANS:
        return "the content of the file differs from the run's copy"
    before, now = ("none" if value is None else shown(value) for value in (before, now))
    return f"the run began with {before}, got {now}"


def _outlook(durations: Sequence[float], open_ones: int) -> str:
    """Return the estimated time for this and the following runs, from the mean of those before."""
    if not durations:
        return ""
    minutes, seconds = divmod(round(sum(durations) / len(durations) * open_ones), 60)
    return f", about {minutes} min {seconds:02d} s left" if minutes else f", about {seconds} s left"


class _Relay:
    """Starts runs and forwards every SIGTERM and SIGINT to the current one.

    A run has a process group of its own: from a terminal it would otherwise get a signal twice, and the
    second one ends a run without its checkpoint.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._process: subprocess.Popen | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hand_on) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def call(self, leg: Leg, command: Sequence[str]) -> None:
        """Run a command to its end.

        Raises:
            EndedEarlier: when its exit code is not 0.
            Stopped: when a signal came while no run was active.
        """
        if self._received is None:
            bind = _bound_to_parent()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=bind
            )
            if self._received is not None:  # it came while the process was being started
                self._process.send_signal(self._received)
            code = self._process.wait()
            self._process = None
            if code != 0:
                code = code if code > 0 else 128 - code
                line = f"seed {leg.seed} ended with exit code {code}: {leg.directory.path}"
                raise EndedEarlier(code, f"--seeds: {line}; the same command resumes from there")
        if self._received is not None:
            line = f"stopped by signal {self._received} in the sweep, at seed {leg.seed}"
            raise Stopped(self._received, line)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if self._process is not None:
            self._process.send_signal(number)


def _bound_to_parent() -> Callable[[], Any] | None:
    """Return a function that ties a child's life to this process (Linux only, prctl(2))."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)
