"""`train`: fine-tune, keep the best step, export the adapter, score it and leave the record."""

from configs.runtime import console, kinds
from configs.runtime.faults import InputFault
from configs.runtime.files import write_bytes
from configs.schema.options import DEEPSPEED
from model.figures.charts import trained_counts
from model.figures.heat_maps import heat_map
from model.freezing.callback import FreezableParameter, FreezingCallback
from model.freezing.record import Matrix, freezing_panels
from model.run.action import Action
from model.run.finish import finish
from model.run.fit import fit
from model.run.job import NOTHING_SEARCHED, Job, Searched
from model.run.start import begin
from model.training.learners.finetune import FineTuner


def run(job: Job) -> int:
    """Train from the beginning or from the checkpoint of `--resume-training`."""
    job.freeze_inactive()
    learner = job.learner(job.data.validation_names)
    rule = job.assembled.freezing
    if not begin(job, learner, [("freezing", rule.description())] if rule is not None else []):
        return 0
    freezings = [] if rule is None else [_freezings(job, learner)]
    trainer, saver = fit(job, learner, freezings)
    found = _drawn(job, freezings[0], trainer.global_step) if freezings else NOTHING_SEARCHED
    finish(job, trainer, learner, saver, found)
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


def _freezings(job: Job, learner: FineTuner) -> FreezingCallback:
    matrices, never_trained = _matrices(job)
    groups = learner.trainable_counts()
    return FreezingCallback(
        job.assembled.freezing,
        matrices,
        never_trained=never_trained,
        trainable_start=sum(groups.values()) - groups["head"],
        folder=job.directory.path / "search",
    )


def _drawn(job: Job, freezings: FreezingCallback, steps: int) -> Searched:
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
    return Searched(pictures=pictures, freezing=history)


def check(job: Job) -> None:
    """Refuse freezing where nothing could, and where what trains must stay the same.

    Raises:
        InputFault: naming the table or the flag.
    """
    if job.assembled.freezing is not None and job.options.strategy in DEEPSPEED:
        word = job.options.strategy
        raise InputFault(
            f"--strategy: {word} cannot freeze matrices while training, which [freezing] asks for;"
            " did you mean 'ddp'?"
        )
    if job.assembled.freezing is not None and not _matrices(job)[0]:
        raise InputFault(
            "--lora-config: [freezing]: no module that is on has a matrix that trains and may stop; method"
            " 'aflora' has them, where its uv_rule lets them train"
        )


ACTION = Action(run, check)
