"""The directory that is a run's record: chosen once, locked while the run goes on, never written over."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from configs.runtime.faults import InputFault, SystemFault
from configs.runtime.files import clear_leftovers
from configs.schema.options import Options

HANDED_DOWN = "LORA_RESEARCH_RUN"
"""Environment variable that hands the first process's directory to the processes it starts."""


@dataclass
class RunDirectory:
    """Paths below `<project-dir>/<project>/` and the lock that holds it.

    Args:
        path: the directory.
        handle: open descriptor that carries the lock; None where another process holds it for the run.
    """

    path: Path
    handle: int | None = None

    @property
    def metrics(self) -> Path:
        """One row per optimiser step and per evaluation."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """The run's result; written last, so that it stands for a finished run."""
        return self.path / "summary.json"

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint of the best evaluation."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def adapter(self) -> Path:
        """The exported adapter."""
        return self.path / "adapter"

    def release(self) -> None:
        """Let the lock go."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def clear_leftovers(self) -> None:
        """Remove what a killed run left half written, and give back a directory that it was replacing."""
        clear_leftovers(self.path)


def automatic_name(options: Options) -> str:
    """Return the name of a run's directory that was given none."""
    name = "_".join((options.model.replace("/", "-").strip("-"), options.task, options.dataset))
    return name + "-mmlu" * (options.mmlu_mode is not None)


def create(project_dir: Path, project: str | None, automatic: str) -> RunDirectory:
    """Make a new run directory and lock it.

    Args:
        project_dir: the parent.
        project: the name that was given; it must be free.
        automatic: the name otherwise; `_1`, `_2`, ... is added while it is taken.

    Raises:
        InputFault: when the given name is taken or the parent cannot be written.
    """
    number = 0
    try:
        project_dir.mkdir(parents=True, exist_ok=True)
        while True:
            name = project or (f"{automatic}_{number}" if number else automatic)
            path = project_dir / name
            try:
                path.mkdir()
                break
            except FileExistsError:
                if project is not None:
                    raise InputFault(
                        f"--project: {path} exists already, and a run directory is never written over"
                    ) from None
                number += 1
    except PermissionError:
        raise InputFault(f"--project-dir: {project_dir} cannot be written") from None
    except (NotADirectoryError, FileExistsError):
        raise InputFault(f"--project-dir: {project_dir} is no directory") from None
    except OSError as error:
        raise SystemFault(f"{project_dir}: {error.strerror}") from None
    return RunDirectory(path, _lock(path))


def reopen(path: Path) -> RunDirectory:
    """Open the directory of a run that is to go on.

    Raises:
        InputFault: when it is missing, cannot be written, or another process is writing it.
    """
    if not path.is_dir():
        raise InputFault(f"--load: {path} is no run directory")
    if not os.access(path, os.W_OK):
        raise InputFault(f"--load: {path} cannot be written")
    return RunDirectory(path, _lock(path))


def of_checkpoint(checkpoint: Path, rank: int) -> RunDirectory:
    """Open the directory that holds a checkpoint; the first process locks it for all.

    Raises:
        InputFault: as `reopen`.
    """
    path = checkpoint.absolute().parent.parent
    return reopen(path) if rank == 0 else RunDirectory(path)


def hand_down(project_dir: Path, project: str | None, automatic: str, rank: int) -> RunDirectory:
    """Make the new run's directory once; processes that the first one starts learn it from the environment.

    Raises:
        InputFault: as `create`.
    """
    if rank != 0:
        return RunDirectory(Path(os.environ.get(HANDED_DOWN, project_dir)))
    directory = create(project_dir, project, automatic)
    os.environ[HANDED_DOWN] = str(directory.path)
    return directory


def _lock(path: Path) -> int:
    """Lock the directory itself: no lock file is left behind, and a killed process frees it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise InputFault(f"{path}: another run is writing this directory") from None
    return handle
