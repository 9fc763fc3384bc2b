"""`imp-test`: score every module that is on, write the score file and its heat map."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from configs.runs.run_directory import RunDirectory
from configs.runtime import console, kinds
from configs.runtime.files import write_bytes
from model.figures.heat_maps import heat_map
from model.run.action import Action
from model.run.fit import fit
from model.run.job import Job, Steps
from model.run.probe import Hooks, batches_read, probe_of, random_b_seed
from model.run.report import write_report
from model.run.start import start
from model.search.heuristic import HeuristicKind
from model.search.saliency import all_equal, measure
from model.search.score_file import Scores, read_scores, score_panel, write_scores
from model.site import SiteKey
from model.training.activation_checkpointing import checkpointed_activations
from model.training.callbacks.instead_of_training import InsteadOfTraining
from model.training.learners.finetune import FineTuner
from model.training.mixed_precision import frozen_weights_in_compute_dtype
from model.training.trainer import build_trainer

_SHOWN = 8


def run(job: Job) -> int:
    """Score; for a heuristic that needs trained adapters train them first, unless a checkpoint holds them."""
    job.freeze_inactive()
    learner = job.learner(job.data.validation_names)
    directory = start(job, learner)
    if directory is None:
        return 0
    kind: HeuristicKind = kinds.load(kinds.HEURISTICS, job.options.importance_test_name)
    if kind.trains_first and not _is_trained(job):
        _train(job, directory, learner)
    record = ScoreRecord(job, directory)
    act = partial(_score, job, kind, record)
    trainer = build_trainer(job.options, None, [InsteadOfTraining(act)], quiet=True)
    with (
        checkpointed_activations(learner.network, wanted=job.options.gradient_checkpointing),
        frozen_weights_in_compute_dtype(learner.network, job.options.precision),
    ):
        trainer.fit(learner, datamodule=job.datamodule)
    if console.rank() == 0:
        _finish(job, directory, learner, record)
    return 0


def _score(
    job: Job, kind: HeuristicKind, record: "ScoreRecord", trainer: L.Trainer, learner: FineTuner
) -> None:
    """Score on the trainer's device and write the score file."""
    chosen = job.data.scoring_batches(batches_read(job, kind))
    batches = list(job.data.scoring_dataloader(chosen))
    hooks = Hooks(record.known(), record.add, record.note)
    drawn = random_b_seed(job.options, kind)
    scores = measure(kind, probe_of(job, trainer, learner, kind, batches, hooks=hooks), drawn)
    start = "as_is" if drawn is None else "random_b"
    record.close(scores, limit_test_num=chosen.total, examples=chosen.examples, score_init=start)


def _is_trained(job: Job) -> bool:
    """Return whether the adapters are already trained, by another run or by this one before a resume."""
    if job.checkpoint is None:
        return False
    return not job.options.resume_training or job.checkpoint["position"]["finished"]


def _train(job: Job, directory: RunDirectory, learner: FineTuner) -> None:
    """Train the adapters for the zero-proxy metric: every epoch its first batches only, no evaluation."""
    devices = job.options.num_devices * job.options.nodes
    batches = job.options.alpha_limit_zptrain_batches.of(job.data.epoch_length(devices))
    fit(job, directory, learner, limits={"limit_train_batches": batches, "limit_val_batches": 0})


class ScoreRecord:
    """The score file of a run, rewritten after every score.

    Args:
        job: the run.
        directory: that of the run.
    """

    def __init__(self, job: Job, directory: RunDirectory) -> None:
        method = job.options.importance_test_name
        self.path: Path = directory.path / "search" / f"scores_{method}.toml"
        sites = job.assembled.attachments.values()
        self.widths = {one.site.key.role: (one.site.in_features, one.site.out_features) for one in sites}
        self.facts: dict[str, Any] = {
            "method": method,
            "dataset": job.task.name,
            "task": job.options.task,
            "seed": job.options.seed,
        }
        self.resumed = job.options.resume_training
        self.scores: dict[SiteKey, float] = {}

    def known(self) -> Mapping[SiteKey, float]:
        """Return the scores that this run had written before it was interrupted."""
        if self.resumed and self.path.is_file():
            self.scores = dict(read_scores(self.path).values)
        return dict(self.scores)

    def note(self, name: str, value: Any) -> None:
        """Set a key at the top of the file."""
        self.facts[name] = value

    def add(self, key: SiteKey, score: float) -> None:
        """Add a score and write the file again."""
        self.scores[key] = score
        self._write()

    def close(self, scores: Mapping[SiteKey, float], **facts: Any) -> None:
        """Write all scores, with facts on how they were computed."""
        self.scores = dict(scores)
        self.facts |= facts
        self._write()

    def _write(self) -> None:
        if console.rank() == 0:
            self.path.parent.mkdir(exist_ok=True)
            write_scores(self.path, Scores(self.scores, self.facts, self.widths))


def _finish(job: Job, directory: RunDirectory, learner: FineTuner, record: ScoreRecord) -> None:
    """Print the scores, draw them, write summary and report."""
    method, scores = job.options.importance_test_name, record.scores
    ranked = sorted(scores, key=lambda key: -scores[key])
    rows = [(place + 1, key, f"{scores[key]:.6g}") for place, key in enumerate(ranked)]
    shown = rows if len(rows) <= 2 * _SHOWN else [*rows[:_SHOWN], ("", "…", ""), *rows[-_SHOWN:]]
    console.table(f"Scores by {method}", ("rank", "module", "score"), shown)
    if all_equal(list(scores.values())) and method != "constant":
        console.say(f"note: all {len(scores)} scores are equal, so the choice is random; see --score-init")
    summary = job.summary(learner, {}, split="train", value=None, steps=Steps())
    picture = record.path.with_suffix(".png")
    write_bytes(picture, heat_map([score_panel(Scores(scores, record.facts), method)], "score"))
    facts = {"model": job.options.model, "data set": job.task.name, "heuristic": method}
    write_report(directory.path, summary, [], facts, {"Scores": picture})
    summary.write(directory.summary)
    console.say(f"scores: {record.path}")


ACTION = Action(run)
