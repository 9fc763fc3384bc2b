"""`train`: fine-tune, keep the best step, export the adapter, score it and leave the record."""

from configs.runtime import console, kinds
from configs.runtime.faults import InputFault
from configs.runtime.files import write_bytes
from configs.schema.options import DEEPSPEED
from model.figures.charts import trained_counts
from model.figures.heat_maps import heat_map
from model.freezing.callback import FreezingCallback, Held
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


def _matrices(job: Job) -> tuple[dict[Matrix, Held], list[Matrix]]:
    """Return what may stop training, and what never trains, by module and factor."""
    matrices, still = {}, []
    for key, attachment in job.assembled.attachments.items():
        kind = kinds.load(kinds.ADAPTERS, job.assembled.methods[key])
        for name in kind.freezable if attachment.active else ():
            held = Held(attachment.adapter, getattr(attachment.adapter, name))
            if held.parameter.requires_grad:
                matrices[Matrix(key, name)] = held
            else:
                still.append(Matrix(key, name))
    return matrices, still


def _freezings(job: Job, learner: FineTuner) -> FreezingCallback:
    matrices, still = _matrices(job)
    groups = learner.trainable_counts()
    return FreezingCallback(
        job.assembled.freezing,
        matrices,
        still=still,
        start=sum(groups.values()) - groups["head"],
        folder=job.directory.path / "search",
    )


def _drawn(job: Job, freezings: FreezingCallback, steps: int) -> Searched:
    """Draw when matrices stopped and how many parameters trained; return both."""
    course, folder, rule = freezings.course, freezings.folder, freezings.rule
    pictures = {
        "The step from which matrices stood still": folder / "freezing.png",
        "Parameters that train": folder / "trainable.png",
    }
    if console.rank() == 0:
        maps, trend = pictures.values()
        write_bytes(maps, heat_map(freezing_panels(course), "optimiser step"))
        counts, least = course.counts(steps), course.start - course.elements
        expected = [least + course.elements * rule.share(step, freezings.length) for step in range(steps)]
        write_bytes(trend, trained_counts(counts, expected))
    return Searched(pictures=pictures, course=course)


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
