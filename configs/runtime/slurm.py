"""What SLURM tells a job about itself, and how a job asks to be queued again; no heavy library is needed."""

import os
import shutil
import subprocess

from configs.runtime.faults import SystemFault

_PATIENCE_SECONDS = 60


def job() -> str | None:
    """Return the word by which `scontrol` knows this job or task of an array; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_restarted() -> bool:
    """Tell whether SLURM started this job before."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return job() is not None and count.isdecimal() and int(count) > 0


def can_requeue() -> bool:
    """Tell whether the program that queues jobs again can be found."""
    return shutil.which("scontrol") is not None


def requeue() -> None:
    """Queue this job again; SLURM ends what still runs of it.

    Raises:
        SystemFault: with what `scontrol` said, when it refuses or does not answer.
    """
    command = ["scontrol", "requeue", job() or ""]
    shown = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemFault(f"--auto-requeue: {shown}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise SystemFault(f"--auto-requeue: {shown}: {said}")
