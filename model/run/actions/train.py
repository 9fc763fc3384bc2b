"""`train`: fine-tune, export the adapter of the best step, evaluate it and write the record."""

from pathlib import Path

from configs.runtime import console, kinds
from configs.runtime.faults import InputFault
from configs.runtime.files import write_bytes
from configs.schema.options import DEEPSPEED
from model.figures.charts import trained_counts
from model.figures.heat_maps import heat_map
from model.freezing.callback import FreezableParameter, FreezingCallback
from model.freezing.record import Matrix, freezing_panels
from model.plan.freezing_rule import Freezing
from model.run.action import Action
from model.run.finish import finish
from model.run.fit import fit
from model.run.job import Job, SearchResult
from model.run.start import start
from model.training.learners.finetune import FineTuner


def run(job: Job) -> int:
    """Train from the beginning or from the checkpoint of `--resume-training`."""
    job.freeze_inactive()
    learner = job.learner(job.data.validation_names)
    rule = job.assembled.freezing
    directory = start(job, learner, [] if rule is None else [("freezing", rule.description())])
    if directory is None:
        return 0
    if rule is None:
        trainer, saver = fit(job, directory, learner)
        finish(job, directory, trainer, learner, saver)
    else:
        freezing = _freezing(job, rule, learner, directory.path / "search")
        trainer, saver = fit(job, directory, learner, [freezing])
        finish(job, directory, trainer, learner, saver, _drawn(freezing, trainer.global_step))
    return 0


def _matrices(job: Job) -> tuple[dict[Matrix, FreezableParameter], list[Matrix]]:
    """Return the matrices that may be frozen, and those that never train, by module and factor."""
    matrices, never_trained = {}, []
    for key, attachment in job.assembled.attachments.items():
        kind = kinds.load(kinds.ADAPTERS, job.assembled.methods[key])
        for name in kind.freezable if attachment.active else ():
            owned = FreezableParameter(attachment.adapter, getattr(attachment.adapter, name))
            if owned.parameter.requires_grad:
                matrices[Matrix(key, name)] = owned
            else:
                never_trained.append(Matrix(key, name))
    return matrices, never_trained


def _freezing(job: Job, rule: Freezing, learner: FineTuner, folder: Path) -> FreezingCallback:
    """Return the callback that freezes matrices and writes `freezing.toml` into the folder."""
    matrices, never_trained = _matrices(job)
    groups = learner.trainable_counts()
    return FreezingCallback(
        rule,
        matrices,
        never_trained=never_trained,
        trainable_start=sum(groups.values()) - groups["head"],
        folder=folder,
    )


def _drawn(freezings: FreezingCallback, steps: int) -> SearchResult:
    """Draw when matrices were frozen and how many parameters trained; return the history and the pictures."""
    history, folder = freezings.history, freezings.folder
    pictures = {
        "The step at which each matrix was frozen": folder / "freezing.png",
        "Parameters that train": folder / "trainable.png",
    }
    if console.rank() == 0:
        maps, trend = pictures.values()
        write_bytes(maps, heat_map(freezing_panels(history), "optimiser step"))
        elements = history.freezable_elements
        least = history.trainable_start - elements
        expected = [least + elements * freezings.expected_share(step) for step in range(steps)]
        write_bytes(trend, trained_counts(history.counts(steps), expected))
    return SearchResult(pictures=pictures, freezing=history)


def check(job: Job) -> None:
    """Refuse freezing where no matrix could be frozen, and with strategies that cannot freeze.

    Raises:
        InputFault: naming the table or the flag.
    """
    if job.assembled.freezing is None:
        return
    strategy = job.options.strategy
    if strategy in DEEPSPEED:
        raise InputFault(
            f"--strategy: {strategy} cannot freeze matrices during training, as [freezing] demands;"
            " did you mean 'ddp'?"
        )
    if not _matrices(job)[0]:
        raise InputFault(
            "--lora-config: [freezing]: no module that is on has a trainable matrix that can be frozen; those"
            " of method 'aflora' have, where its uv_rule makes them trainable"
        )


ACTION = Action(run, check)
