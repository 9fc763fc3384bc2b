"""Evaluate a network on its test set: by loss and metrics, or by the text it generates."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from configs.runtime import console
from configs.runtime.files import write_text
from model.run.job import Job
from model.run.task_facts import GenerationFacts
from model.training.learners.finetune import FineTuner
from model.training.learners.generation import GenerationEvaluator

_SAMPLES = 20
"""Answers that are written."""
_SHOWN = 4
"""Answers that are printed."""
_WIDTH = 120
"""Characters of a printed text."""


def evaluate_test(job: Job, trainer: L.Trainer, learner: FineTuner, directory: Path) -> dict[str, float]:
    """Return the metrics of the test set by name, `test/...`.

    A task that is scored by generated text writes its first answers into `samples.jsonl`, and with
    `--write-predictions` all of them into `predictions_test.jsonl`, since they may have several lines.

    Args:
        job: the run.
        trainer: gives devices, precision and processes.
        learner: the network and its adapters.
        directory: that of the run.
    """
    generation = _generation(job)
    if generation is None:
        learner.evaluations = job.data.test_names
        trainer.test(learner, datamodule=job.datamodule, verbose=False)
        return {name: value for name, value in learner.results.items() if name.startswith("test/")}
    evaluator = GenerationEvaluator(
        learner.network,
        learner.adapters,
        tokenizer=job.assembled.tokenizer,
        max_new_tokens=_new_tokens(job, generation),
        score=generation.score,
        golds=generation.golds,
    )
    trainer.test(evaluator, datamodule=job.datamodule, verbose=False)
    samples = [_sample(generation, row, text) for row, text in list(evaluator.answers.items())[:_SAMPLES]]
    if console.rank() == 0:
        _write_lines(directory / "samples.jsonl", samples)
        if job.options.write_predictions:
            every = [{"index": row, "prediction": text.strip()} for row, text in evaluator.answers.items()]
            _write_lines(directory / "predictions_test.jsonl", every)
    _show_samples(samples[:_SHOWN])
    return evaluator.results


def _generation(job: Job) -> GenerationFacts | None:
    """Return how the test set is scored by generated text; None where it has labels or is missing."""
    return job.task.generation if "test" in job.data.test_names else None


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def _new_tokens(job: Job, generation: GenerationFacts) -> int:
    """Return the most tokens of an answer: those of the task, or what the network's positions allow.

    The longest prompt of the whole set decides, so that an answer does not depend on its batch.
    """
    backbone = job.assembled.backbone
    longest = int(max(job.data.splits["test"].lengths))
    room = backbone.family.positions(backbone.network.config) - longest + 1  # the last token is never fed
    if room < generation.max_new_tokens:
        console.say(f"note: answers are cut after {room} tokens, where the network's positions end")
    return min(generation.max_new_tokens, room)


def _sample(generation: GenerationFacts, row: int, answer: str) -> dict[str, Any]:
    gold = generation.golds[row]
    return {
        "row": row,
        "prompt": generation.prompts[row],
        "answer": answer,
        "gold": gold,
        "scores": generation.score(answer, gold),
    }


def _show_samples(rows: list[dict[str, Any]]) -> None:
    """Print a few answers with their gold answers."""
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


def write_predictions(job: Job, trainer: L.Trainer, learner: FineTuner, directory: Path) -> None:
    """Write the predictions for each set without labels into `predictions_SET.tsv`: index and prediction."""
    names = job.data.predict_names
    if not names:
        if _generation(job) is None:
            console.say("note: --write-predictions: this data set has no split without labels")
        return
    outputs: Any = trainer.predict(learner, datamodule=job.datamodule)  # a list of lists, for several sets
    per_set = outputs if len(names) > 1 else [outputs]
    gathered = [_all_pairs(batches, trainer.world_size) for batches in per_set]
    if console.rank() != 0:
        return
    for name, pairs in zip(names, gathered):
        text = "".join(f"{row}\t{_label(job, value)}\n" for row, value in sorted(pairs))
        write_text(directory / f"predictions_{name}.tsv", "index\tprediction\n" + text)


def _all_pairs(batches: Sequence[tuple[Tensor, Tensor]], world: int) -> list[tuple[int, float]]:
    """Return (row, prediction) of all processes.

    Args:
        batches: row numbers (B) and predictions (B) of this process.
        world: number of processes.
    """
    own = [pair for rows, values in batches for pair in zip(rows.tolist(), values.tolist())]
    if world == 1:
        return own
    shares: list[list[tuple[int, float]]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(shares, own)
    return [pair for share in shares for pair in share]


def _label(job: Job, value: float) -> str:
    return job.task.classes[int(value)] if job.task.classes else repr(value)


def show_result(title: str, metrics: Mapping[str, float]) -> None:
    """Print the final metrics, and note those without a value, as a correlation of equal predictions."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            console.say(f"note: {name} is undefined ({value}); summary.json has null")
    console.table(title, ("metric", "value"), [(name, f"{value:.6g}") for name, value in metrics.items()])
