"""Start a run: print what will run, and write the first files of its directory."""

import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from configs.runs.experiment import PLANS, file_digests
from configs.runs.run_directory import RunDirectory
from configs.runtime import console
from configs.runtime.files import write_bytes, write_text
from configs.schema.base_dtype import QUANTIZER_PACKAGE
from configs.toml.writer import toml_text
from model.run.job import Job
from model.site import SHORTCUT_ROLES
from model.training.learners.finetune import FineTuner

_PACKAGES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "safetensors")


def write_first_files(job: Job, directory: RunDirectory) -> None:
    """Write `config.toml`, the copies of the plans and `run.toml`, on the first process only."""
    if console.rank() != 0:
        return
    path = directory.path
    write_text(path / "config.toml", job.config_text)
    for option, name in PLANS.items():
        plan = getattr(job.options, option)
        if plan is not None and Path(plan) != path / name:
            write_bytes(path / name, Path(plan).read_bytes())
    for name, content in job.corpus.items():
        (path / "search").mkdir(exist_ok=True)
        write_bytes(path / "search" / name, content)
    write_text(path / "run.toml", toml_text(_circumstances(job, path)))


def _circumstances(job: Job, directory: Path) -> dict[str, Any]:
    """Return the content of `run.toml`: everything that differs between equal runs."""
    notes = [*job.notes, *job.assembled.notes]
    packages = _PACKAGES if job.assembled.backbone.quantizer is None else (*_PACKAGES, QUANTIZER_PACKAGE)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "action": job.action,
        "command": shlex.join(["python", "-m", "main", *job.command]),
        "host": platform.node(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "git_commit": _commit(),
        **({"notes": notes} if notes else {}),
        "versions": {name: version(name) for name in packages},
        "base": {"source": job.assembled.backbone.word, "sha256": job.assembled.backbone.digest},
        **_decoding(job),
        "data": dict(job.digests),
        "files": file_digests(directory),
    }


def _decoding(job: Job) -> dict[str, Any]:
    """Return the settings with which answers are generated, whatever the base's files recommend."""
    facts, tokenizer = job.task.generation, job.assembled.backbone.tokenizer
    if facts is None or tokenizer is None:
        return {}
    ids = {"end_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"decoding": {"strategy": "greedy", "max_new_tokens": facts.max_new_tokens, **ids}}


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def start(job: Job, learner: FineTuner, more: Sequence[tuple[str, str]] = ()) -> RunDirectory | None:
    """Print what will run and write the first files of a new run.

    Args:
        job: the run.
        learner: counts the trainable parameters.
        more: further rows of the table, which replace rows of the same name.

    Returns:
        The run directory; None for a dry run, which ends here.
    """
    show_start(job, learner, more)
    if job.directory is not None and not job.options.resume_training:
        write_first_files(job, job.directory)
    return job.directory


def show_start(job: Job, learner: FineTuner, more: Sequence[tuple[str, str]] = ()) -> None:
    """Print adapters by role, trainable parameters by group, one example, the metric and the notes.

    Args:
        job: the run.
        learner: counts the trainable parameters.
        more: further rows, which replace rows of the same name.
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
    rows: list[tuple[str, str]] = [
        ("run directory", "none (dry run)" if job.directory is None else str(job.directory.path)),
        ("base", f"{job.assembled.backbone.word} (sha256 {job.assembled.backbone.digest[:12]})"),
        ("adapted modules", roles),
        *_shortcut_row(job),
        ("budget", f"{enabled} of {len(job.assembled.attachments)} attached modules on"),
        ("trainable parameters", f"{parts} = {total:,} ({100 * total / whole:.3f} % of {whole:,})"),
        ("rows", ", ".join(_used(name, count) for name, count in job.rows["splits"].items())),
        *([("rows refused", "; ".join(job.refusals))] if job.refusals else []),
        *_mixture(job.rows.get("parts", {})),
        ("metric", f"{job.selection_metric}, {direction}"),
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
    """Return a row with each part's share of an epoch, for a mixture that trains."""
    key = "drawn_per_epoch"
    drawn = {part: account[key] for part, account in parts.items() if key in account}
    total = sum(drawn.values())
    shares = [f"{part} {count:,} ({100 * count / total:.1f} %)" for part, count in drawn.items()]
    return [("examples of an epoch", ", ".join(shares))] if shares else []


def _shortcut_row(job: Job) -> list[tuple[str, str]]:
    """Return a row with the number of shortcuts, their parameters and how they are wired."""
    stream, attachments = job.assembled.stream, job.assembled.attachments
    if stream is None:
        return []
    modules = [one.adapter for key, one in attachments.items() if key.role in SHORTCUT_ROLES]
    count = sum(p.numel() for module in modules for p in module.parameters())
    return [("shortcuts", f"{len(modules)} of the adapted modules, {count:,} parameters, norm {stream.norm}")]
