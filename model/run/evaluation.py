"""Score a network on its test set: by its loss and metrics, or by the answers it generates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from configs.runtime import console
from configs.runtime.files import write_text
from model.run.job import Job
from model.training.learners.finetune import FineTuner
from model.training.learners.generation import GenerationEvaluator

_SAMPLES = 20
_SHOWN = 4
_WIDTH = 120


def score(job: Job, trainer: L.Trainer, learner: FineTuner, directory: Path | None) -> dict[str, float]:
    """Return `test/...` metrics.

    Generated answers leave `samples.jsonl` in the directory, and with `--write-predictions` all of them
    `predictions_test.jsonl`; answers may have several lines.
    """
    if not _is_generated(job):
        learner.evaluations = job.data.test_names
        trainer.test(learner, datamodule=job.data, verbose=False)
        return {name: value for name, value in learner.results.items() if name.startswith("test/")}
    tester = GenerationEvaluator(
        learner.network,
        learner.adapters,
        tokenizer=job.assembled.backbone.tokenizer,
        max_new_tokens=_new_tokens(job),
        score=job.task.score,
        golds=job.task.golds,
    )
    trainer.test(tester, datamodule=job.data, verbose=False)
    rows = [_sample(job, row, text) for row, text in list(tester.answers.items())[:_SAMPLES]]
    if directory is not None and console.rank() == 0:
        _write_lines(directory / "samples.jsonl", rows)
        if job.options.write_predictions:
            every = [{"index": row, "prediction": text.strip()} for row, text in tester.answers.items()]
            _write_lines(directory / "predictions_test.jsonl", every)
    show_samples(rows[:_SHOWN])
    return tester.results


def _is_generated(job: Job) -> bool:
    return job.task.max_new_tokens is not None and "test" in job.data.test_names


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _new_tokens(job: Job) -> int:
    """Return the cut-off of answers: the task's, or what the network's positions leave.

    The longest prompt of the whole set decides, so that an answer does not depend on its batch.
    """
    backbone = job.assembled.backbone
    longest = int(max(job.data.splits["test"].lengths))
    room = backbone.family.positions(backbone.network.config) - longest + 1  # the last token is never fed
    if room < job.task.max_new_tokens:
        console.say(f"note: answers end after {room} tokens, the network has no further positions")
    return min(job.task.max_new_tokens, room)


def _sample(job: Job, row: int, answer: str) -> dict[str, Any]:
    gold = job.task.golds[row]
    return {
        "row": row,
        "prompt": job.task.prompts[row],
        "answer": answer,
        "gold": gold,
        "scores": job.task.score(answer, gold),
    }


def show_samples(rows: list[dict[str, Any]]) -> None:
    """Print a few answers beside their gold."""
    cells = [
        (
            row["prompt"][-_WIDTH:],
            row["answer"].strip()[:_WIDTH],
            row["gold"][:_WIDTH],
            next(iter(row["scores"].values())),
        )
        for row in rows
    ]
    console.table("Sample answers", ("prompt", "answer", "gold", "score"), cells)


def write_predictions(job: Job, trainer: L.Trainer, learner: nn.Module, directory: Path) -> None:
    """Write predictions for the sets without labels, one file each: index and prediction."""
    if not job.data.predict_names:
        if not _is_generated(job):
            console.say("note: --write-predictions: this data set has no split without labels")
        return
    outputs = trainer.predict(learner, datamodule=job.data)
    per_loader = outputs if len(job.data.predict_names) > 1 else [outputs]
    shares = [_all_pairs(batches, trainer.world_size) for batches in per_loader]
    if console.rank() != 0:
        return
    for name, pairs in zip(job.data.predict_names, shares):
        text = "".join(f"{row}\t{_label(job, value)}\n" for row, value in sorted(pairs))
        write_text(directory / f"predictions_{name}.tsv", "index\tprediction\n" + text)


def _all_pairs(batches: Sequence[tuple[Tensor, Tensor]], world: int) -> list[tuple[int, float]]:
    """Return (row, prediction) of all processes."""
    own = [pair for rows, values in batches for pair in zip(rows.tolist(), values.tolist())]
    if world == 1:
        return own
    shares: list[list[tuple[int, float]]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(shares, own)
    return [pair for share in shares for pair in share]


def _label(job: Job, value: float) -> str:
    return job.task.classes[int(value)] if job.task.classes else repr(value)


def show_result(title: str, metrics: Mapping[str, float]) -> None:
    """Print the closing table."""
    console.table(title, ("metric", "value"), [(name, f"{value:.6g}") for name, value in metrics.items()])
