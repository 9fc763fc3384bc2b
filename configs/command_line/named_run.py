"""A run named by its directory: which of its checkpoints is meant."""

import os
from collections.abc import Mapping
from pathlib import Path

from configs.runs.run_directory import RunDirectory
from configs.runtime.faults import InputFault
from configs.schema.settings import Setting

CHECKPOINT_ENDING = ".ckpt"


def is_run(word: str) -> bool:
    """Return whether a word names a run: a directory with any of a run's files, or a `.ckpt` file."""
    if word.endswith(CHECKPOINT_ENDING):
        return os.path.isfile(word)
    return any(
        os.path.exists(os.path.join(word, name)) for name in ("config.toml", "run.toml", "checkpoints")
    )


def checkpoint_settings(given: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return `load` and `load_type` where `--load` names a run; empty where it does not, or for another type.

    A resumed run goes on from last.ckpt. Everything else takes best.ckpt, or last.ckpt where there is no
    evaluation yet. The best checkpoint is what a finished run is reported by.

    Raises:
        InputFault: for the directory of a run without config.toml or without a checkpoint.
    """
    load, kind = given.get("load"), given.get("load_type")
    if load is None or (kind is not None and kind.value != "pl") or not is_run(load.value or ""):
        return {}
    path = Path(load.value)
    if path.is_dir():
        run, resumed = RunDirectory(path), given.get("resume_training")
        goes_on = resumed is not None and resumed.value
        path = run.last if goes_on or not run.best.is_file() else run.best
        lacking = [name for name in (run.path / "config.toml", path) if not name.is_file()]
        if lacking:
            raise InputFault(f"{load.where}: '{run.path}' is no whole run, it has no {lacking[0].name}")
    return {
        "load": Setting(str(path), load.source, load.where),
        "load_type": kind or Setting("pl", load.source, load.where),
    }
