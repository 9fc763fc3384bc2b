"""The beginning of a run: its directory's first files and the tables a person reads."""

import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from configs.runs.experiment import PLANS
from configs.runtime import console
from configs.runtime.files import write_bytes, write_text
from configs.schema.base_dtype import QUANTIZER_PACKAGE
from configs.toml.writer import toml_text
from model.run.job import Job
from model.site import SHORTCUT_ROLES
from model.training.learners.finetune import FineTuner

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "safetensors")


def write_first_files(job: Job) -> None:
    """Write `config.toml`, the plans' copies and `run.toml`; the first process alone does it."""
    if job.directory is None or console.rank() != 0:
        return
    path = job.directory.path
    write_text(path / "config.toml", job.config_text)
    for option, name in PLANS.items():
        plan = getattr(job.options, option)
        if plan is not None and Path(plan) != path / name:
            write_bytes(path / name, Path(plan).read_bytes())
    for name, content in job.corpus.items():
        (path / "search").mkdir(exist_ok=True)
        write_bytes(path / "search" / name, content)
    write_text(path / "run.toml", toml_text(_circumstances(job)))


def _circumstances(job: Job) -> dict:
    """Return everything that changes from run to run."""
    packages = _PACKAGES if job.assembled.backbone.quantizer is None else (*_PACKAGES, QUANTIZER_PACKAGE)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "action": job.action,
        "command": shlex.join(["python", "-m", "main", *job.command]),
        "host": platform.node(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "git_commit": _commit(),
        "versions": {name: version(name) for name in packages},
        "base": {"source": job.assembled.backbone.word, "sha256": job.assembled.backbone.digest},
        "data": dict(job.digests),
    }


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def begin(job: Job, learner: FineTuner, more: Sequence[tuple[str, str]] = ()) -> bool:
    """Show what will run, write the first files of a new run, and tell whether there is anything to do.

    Args:
        job: the run.
        learner: counts what trains.
        more: further rows of the table, which take the place of rows of the same name.

    Returns:
        False for a dry run.
    """
    show_start(job, learner, more)
    if job.directory is not None and not job.options.resume_training:
        write_first_files(job)
    return job.directory is not None


def show_start(job: Job, learner: FineTuner, more: Sequence[tuple[str, str]] = ()) -> None:
    """Print matched modules per role, trained parameters by group, one example and the metric.

    Args:
        job: the run.
        learner: counts what trains.
        more: further rows, which take the place of rows of the same name.
    """
    roles = (
        ", ".join(f"{role} {count}" for role, count in sorted(job.assembled.counts_by_role().items()))
        or "none"
    )
    groups = learner.trainable_counts()
    total = sum(groups.values())
    whole = sum(p.numel() for p in learner.parameters())
    parts = ", ".join(f"{name} {count:,}" for name, count in groups.items() if count)
    direction = "higher is better" if job.task.maximise else "lower is better"
    enabled = sum(attachment.active for attachment in job.assembled.attachments.values())
    rows = [
        ("run directory", "none (dry run)" if job.directory is None else job.directory.path),
        ("base", f"{job.assembled.backbone.word} (sha256 {job.assembled.backbone.digest[:12]})"),
        ("adapted modules", roles),
        *_shortcut_row(job),
        ("budget", f"{enabled} of {len(job.assembled.attachments)} attached modules on"),
        ("trainable parameters", f"{parts} = {total:,} ({100 * total / whole:.3f} % of {whole:,})"),
        ("rows", ", ".join(_used(name, count) for name, count in job.rows["splits"].items())),
        *([("rows refused", "; ".join(job.refusals))] if job.refusals else []),
        *_mixture(job.rows.get("parts", {})),
        ("metric", f"{job.selected}, {direction}"),
        ("example", job.preview),
    ]
    table = {name: value for name, value in (*rows, *more)}
    console.table("Run", ("what", "value"), list(table.items()))
    for note in (*job.notes, *job.assembled.notes):
        console.say(f"note: {note}")


def _used(name: str, counts: Mapping[str, int]) -> str:
    """Return how many rows of a split are used, and what became of the others."""
    words = {"refused": "refused", "not_selected": "not selected", "cut": "cut to --max-token-len"}
    others = [f"{counts[key]:,} {word}" for key, word in words.items() if counts.get(key)]
    if counts["used"] != counts["read"]:
        others.insert(0, f"of {counts['read']:,} read")
    return f"{name} {counts['used']:,}" + (f" ({', '.join(others)})" if others else "")


def _mixture(parts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Return a line with each part's share of an epoch, if there are parts that train."""
    key = "drawn_per_epoch"
    drawn = {part: account[key] for part, account in parts.items() if key in account}
    total = sum(drawn.values())
    shares = [f"{part} {count:,} ({100 * count / total:.1f} %)" for part, count in drawn.items()]
    return [("examples of an epoch", ", ".join(shares))] if shares else []


def _shortcut_row(job: Job) -> list[tuple[str, str]]:
    """Say what the shortcuts among the adapted modules hold and how they are wired."""
    stream, attachments = job.assembled.stream, job.assembled.attachments
    if stream is None:
        return []
    modules = [one.adapter for key, one in attachments.items() if key.role in SHORTCUT_ROLES]
    count = sum(p.numel() for module in modules for p in module.parameters())
    return [("shortcuts", f"{len(modules)} of the adapted modules, {count:,} parameters, norm {stream.norm}")]
