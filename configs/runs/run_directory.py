"""The directory of a run: chosen once, locked while the run is going on, never overwritten."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import BaseFileLock, FileLock, Timeout

from configs.runtime.faults import InputFault, SystemFault
from configs.runtime.files import clear_leftovers
from configs.schema.options import Options

HANDED_DOWN = "LORA_RESEARCH_RUN"
"""Environment variable that hands the first process's directory to the processes it starts."""


@dataclass
class RunDirectory:
    """The paths in `<project-dir>/<project>/`, and its lock, which leaving a `with` block releases.

    Args:
        path: the directory.
        lock: the lock, held; None where the run's first process holds it.
    """

    path: Path
    lock: BaseFileLock | None = None

    @property
    def metrics(self) -> Path:
        """One row per optimiser step and per evaluation."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """The run's result; written last, so its presence means that the run is finished."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock, if this process holds it, and delete its file."""
        if self.lock is not None:
            with suppress(OSError):  # Windows does not delete an open file; an empty file then stays
                os.unlink(self.lock.lock_file)
            self.lock.release()
            self.lock = None

    def clear_leftovers(self) -> None:
        """Delete what a killed run left unfinished, and restore a directory that it was replacing."""
        clear_leftovers(self.path)


def automatic_name(options: Options) -> str:
    """Return the directory's name for a run without `--project`: model, task and data set."""
    name = "_".join((options.model.replace("/", "-").strip("-"), options.task, options.dataset))
    return name + "-mmlu" * (options.mmlu_mode is not None)


def create(project_dir: Path, project: str | None, automatic: str) -> RunDirectory:
    """Create a new run directory and lock it.

    Args:
        project_dir: the parent directory, created where missing.
        project: the name of `--project`, which must not exist yet; None: `automatic`.
        automatic: the name without `--project`; `_1`, `_2`, ... is appended until it is free.

    Raises:
        InputFault: when the given name exists or the parent cannot be written.
        SystemFault: when the file system refuses for another reason.
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
                        f"--project: '{path}' already exists, and a run directory is never overwritten"
                    ) from None
                number += 1
    except PermissionError:
        raise InputFault(f"--project-dir: '{project_dir}' is not writable") from None
    except (NotADirectoryError, FileExistsError):
        raise InputFault(f"--project-dir: '{project_dir}' is not a directory") from None
    except OSError as error:
        raise SystemFault(f"{project_dir}: {error.strerror}") from None
    return RunDirectory(path, _lock(path))


def reopen(path: Path) -> RunDirectory:
    """Open and lock the directory of a run that is to be resumed.

    Raises:
        InputFault: when it does not exist, is not writable, or another process has locked it.
    """
    if not path.is_dir():
        raise InputFault(f"--load: '{path}' is not a run directory")
    if not os.access(path, os.W_OK):
        raise InputFault(f"--load: '{path}' is not writable")
    return RunDirectory(path, _lock(path))


def of_checkpoint(checkpoint: Path, rank: int) -> RunDirectory:
    """Open the run directory that contains a checkpoint; the first process locks it for all.

    Raises:
        InputFault: as `reopen`.
    """
    path = checkpoint.absolute().parent.parent
    return reopen(path) if rank == 0 else RunDirectory(path)


def hand_down(project_dir: Path, project: str | None, automatic: str, rank: int) -> RunDirectory:
    """Create the new run's directory in the first process and pass its path on through the environment.

    Raises:
        InputFault: as `create`.
    """
    if rank != 0:
        return RunDirectory(Path(os.environ.get(HANDED_DOWN, project_dir)))
    directory = create(project_dir, project, automatic)
    os.environ[HANDED_DOWN] = str(directory.path)
    return directory


def _lock(path: Path) -> BaseFileLock:
    """Lock a directory by a file in it; the system releases the lock of a killed process.

    The file is deleted before the lock is released. A process that has opened the deleted file meanwhile
    gets no lock on it, as filelock then looks for the file again.
    """
    lock = FileLock(path / ".lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputFault(f"{path}: another run is writing to this directory") from None
    except OSError as error:
        raise SystemFault(f"{path}: cannot be locked: {error.strerror}") from None
    return lock
