"""Run a job's training loop: from the beginning, or exactly from where a checkpoint stopped."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L

from configs.runtime import console, slurm
from configs.runtime.console import is_quiet
from model.run.job import Job
from model.training.callbacks.checkpoints import Checkpoints, set_position
from model.training.callbacks.metrics_record import MetricsRecord, check_length
from model.training.compilation import compiled
from model.training.learners.finetune import FineTuner
from model.training.mixed_precision import frozen_weights_in_compute_dtype
from model.training.trainer import build_trainer, early_stopping, shards_weights


def fit(
    job: Job,
    learner: FineTuner,
    callbacks: Sequence[L.Callback] = (),
    limits: Mapping[str, int] | None = None,
) -> tuple[L.Trainer, Checkpoints]:
    """Train to the end, keeping `metrics.csv`, `last.ckpt` and `best.ckpt`.

    Args:
        job: what runs; with `--resume-training` its checkpoint's position is where training begins.
        learner: trains and evaluates.
        callbacks: act before the record and the checkpoints of the same moment.
        limits: further words of Lightning's Trainer: batches of an epoch or of its evaluation.
    """
    options = job.options
    resumed = job.checkpoint if options.resume_training else None
    record, saver = _keepers(job)
    stop = early_stopping(job.selected, job.task.maximise, options.early_stopping_patience)
    position = None if resumed is None else resumed["position"]
    trainer = build_trainer(
        options,
        job.directory.path,
        [*callbacks, record, *stop, saver],
        quiet=is_quiet(),
        steps=0 if position is None else position["steps"],
        limits=limits,
        layers=job.assembled.layers,
    )
    if position is not None:
        _go_on(job, trainer, position, resumed["callbacks"][record.state_key]["offset"])
    if options.gradient_checkpointing:
        learner.network.gradient_checkpointing_enable({"use_reentrant": False})
    _say_dropped(job, trainer.world_size)
    learner.train()  # hosts are loaded in evaluation mode
    with ExitStack() as stack:
        # Shards are cut from the weights as they are; no swap could be undone.
        if not shards_weights(options):
            stack.enter_context(frozen_weights_in_compute_dtype(learner.network, options.precision))
        if options.compile:
            stack.enter_context(compiled(job.assembled.layers, job.assembled.attachments.values()))
        trainer.fit(learner, datamodule=job.data, ckpt_path=None if resumed is None else str(options.load))
    if options.gradient_checkpointing:
        learner.network.gradient_checkpointing_disable()
    return trainer, saver


def _keepers(job: Job) -> tuple[MetricsRecord, Checkpoints]:
    options, directory = job.options, job.directory
    record = MetricsRecord(directory.metrics, options.log_every_n_steps)
    saver = Checkpoints(
        directory.last.parent,
        selection=job.selected,
        maximise=job.task.maximise,
        every_steps=options.checkpoint_every_n_steps,
        max_steps=options.max_steps,
        facts=job.facts(),
        before_save=record.flush,
    )
    if options.auto_requeue and slurm.job():
        saver.requeue = slurm.requeue
    return record, saver


def _go_on(job: Job, trainer: L.Trainer, position: Mapping[str, Any], recorded: int) -> None:
    """Set trainer and data to a checkpoint's position, of which `recorded` bytes of metrics are a part."""
    if console.rank() == 0:
        check_length(job.directory.metrics, recorded)
        job.directory.clear_leftovers()
    set_position(trainer, position)
    job.data.resume(position["epoch"], position["batches"])
    if position["finished"]:  # killed between the last step and the summary: nothing is left to train
        trainer.fit_loop.max_epochs = position["epoch"]


def _say_dropped(job: Job, world: int) -> None:
    """Say how many examples of an epoch do not fill every process and are left out."""
    tail = job.data.dropped_per_epoch(world)
    if tail:
        console.say(f"note: {tail} examples of each epoch are left out, they do not fill {world} processes")
