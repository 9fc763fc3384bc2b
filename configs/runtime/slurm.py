"""The job's identity in SLURM's environment, and how a job requeues itself; imports no heavy library."""

import os
import shutil
import subprocess

from configs.runtime.faults import SystemFault

_TIMEOUT_SECONDS = 60


def job() -> str | None:
    """Return the ID of this job, or of this task of an array, for `scontrol`; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def is_restarted() -> bool:
    """Return whether SLURM restarted this job."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return job() is not None and count.isdecimal() and int(count) > 0


def can_requeue() -> bool:
    """Return whether `scontrol`, which requeues jobs, is on the PATH."""
    return shutil.which("scontrol") is not None


def requeue() -> None:
    """Requeue this job; SLURM then ends the processes that still run.

    Raises:
        SystemFault: with the message of `scontrol`, when it fails or does not answer.
    """
    command = ["scontrol", "requeue", job() or ""]
    shown = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemFault(f"--auto-requeue: {shown}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise SystemFault(f"--auto-requeue: {shown}: {said}")
