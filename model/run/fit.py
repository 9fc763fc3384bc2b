"""Run the training loop of a job: from the beginning, or exactly from where a checkpoint stopped."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import lightning as L

from configs.runs.run_directory import RunDirectory
from configs.runtime import console, slurm
from configs.runtime.console import is_quiet
from configs.runtime.faults import InputFault
from model.run.job import Job
from model.training.activation_checkpointing import checkpointed_activations
from model.training.callbacks.checkpoints import Checkpoints, set_position
from model.training.callbacks.metrics_record import MetricsRecord, check_length
from model.training.compilation import compiled
from model.training.learners.finetune import FineTuner
from model.training.mixed_precision import frozen_weights_in_compute_dtype
from model.training.trainer import build_trainer, early_stopping, shards_weights


def fit(
    job: Job,
    directory: RunDirectory,
    learner: FineTuner,
    callbacks: Sequence[L.Callback] = (),
    limits: Mapping[str, int] | None = None,
) -> tuple[L.Trainer, Checkpoints]:
    """Train to the end, keeping `metrics.csv`, `last.ckpt` and `best.ckpt`.

    Args:
        job: what runs; with `--resume-training` training begins at the position of its checkpoint.
        directory: that of the run.
        learner: trains and evaluates.
        callbacks: called before the record and the checkpoints of the same moment.
        limits: further arguments of Lightning's Trainer: batches of an epoch or of its evaluation.

    Returns:
        The trainer, and the callback that knows the best step.

    Raises:
        InputFault: when the files of a run that is resumed do not fit its checkpoint.
    """
    options = job.options
    resumed = job.checkpoint if options.resume_training else None
    record, saver = _recorders(job, directory)
    stop = early_stopping(job.selection_metric, job.task.maximise, options.early_stopping_patience)
    trainer = build_trainer(
        options,
        directory.path,
        [*callbacks, record, *stop, saver],
        quiet=is_quiet(),
        steps=0 if resumed is None else resumed["position"]["steps"],
        limits=limits,
        layers=job.assembled.layers,
    )
    if resumed is not None:
        _require_states(trainer, resumed["callbacks"], str(options.load))
        recorded = resumed["callbacks"][record.state_key]["offset"]
        _resume(job, directory, trainer, resumed["position"], recorded)
    _note_dropped(job, trainer.world_size)
    learner.train()  # hosts are loaded in evaluation mode
    with ExitStack() as stack:
        stack.enter_context(checkpointed_activations(learner.network, wanted=options.gradient_checkpointing))
        # A sharded strategy splits the weights as they are, so they could not be swapped back.
        if not shards_weights(options):
            stack.enter_context(frozen_weights_in_compute_dtype(learner.network, options.precision))
        if options.compile:
            stack.enter_context(compiled(job.assembled.layers, job.assembled.attachments.values()))
        trainer.fit(
            learner, datamodule=job.datamodule, ckpt_path=None if resumed is None else str(options.load)
        )
    return trainer, saver


def _recorders(job: Job, directory: RunDirectory) -> tuple[MetricsRecord, Checkpoints]:
    """Return the callbacks that write metrics and checkpoints."""
    options = job.options
    record = MetricsRecord(directory.metrics, options.log_every_n_steps)
    saver = Checkpoints(
        directory.last.parent,
        selection=job.selection_metric,
        maximise=job.task.maximise,
        every_steps=options.checkpoint_every_n_steps,
        max_steps=options.max_steps,
        facts=job.checkpoint_facts(),
        before_save=record.flush,
    )
    if options.auto_requeue and slurm.job():
        saver.requeue = slurm.requeue
    return record, saver


def _resume(
    job: Job, directory: RunDirectory, trainer: L.Trainer, position: Mapping[str, Any], recorded: int
) -> None:
    """Set trainer and data to a checkpoint's position; `recorded` bytes of metrics.csv belong to it."""
    if console.rank() == 0:
        check_length(directory.metrics, recorded)
        directory.clear_leftovers()
        console.say(f"resumed after step {position['steps']}, in epoch {position['epoch']}")
    set_position(trainer, position)
    job.data.resume(position["epoch"], position["batches"])
    if position["finished"]:  # killed between the last step and the summary: no step is left
        trainer.fit_loop.max_epochs = position["epoch"]


def _require_states(trainer: L.Trainer, states: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint without the state of a callback that had one when it was written."""
    for callback in getattr(trainer, "callbacks", ()):  # an attribute that Lightning does not declare
        has_state = type(callback).state_dict is not L.Callback.state_dict
        if has_state and callback.state_key not in states:
            raise InputFault(f"{where}: callbacks: lacks the state of {type(callback).__name__}")


def _note_dropped(job: Job, world: int) -> None:
    """Note how many examples an epoch leaves out because they do not fill a batch of every process."""
    tail = job.data.dropped_per_epoch(world)
    if tail:
        console.say(
            f"note: {tail} examples of each epoch are left out: they do not fill a batch of {world} processes"
        )
