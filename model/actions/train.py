"""`train`: fine-tune, keep the best step, export the adapter, score it and leave the record."""

from model.action import Action
from model.finishing import finish
from model.fitting import fit
from model.job import Job
from model.opening import begin


def run(job: Job) -> int:
    """Train from the beginning or from the checkpoint of `--resume-training`."""
    learner = job.learner(job.data.validation_names)
    if not begin(job, learner):
        return 0
    trainer, saver = fit(job, learner)
    finish(job, trainer, learner, saver)
    return 0


ACTION = Action(run)
