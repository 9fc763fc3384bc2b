"""`test`: evaluate a plain, pretrained or trained model."""

from configs.runtime import console
from configs.runtime.console import is_quiet
from model.run.action import Action
from model.run.evaluation import score, show_result, write_predictions
from model.run.job import Job, Steps
from model.run.report import write_report
from model.run.start import show_start, write_first_files
from model.training.callbacks.metrics_record import close_metrics
from model.training.trainer import build_trainer


def run(job: Job) -> int:
    """Score the model on the test set, or on the validation sets of a task whose test set has no labels."""
    job.freeze_inactive()
    learner = job.learner(job.data.test_names)
    show_start(job, learner)
    if job.directory is None:
        return 0
    write_first_files(job)
    trainer = build_trainer(job.options, None, quiet=is_quiet(), layers=job.assembled.layers)
    path = job.directory.path
    metrics = score(job, trainer, learner, path)
    if job.options.write_predictions:
        write_predictions(job, trainer, learner, path)
    if console.rank() == 0:
        close_metrics(job.directory.metrics, 0, 0, metrics)
        value = metrics.get(f"test/{job.task.selection}")
        split = ", ".join(job.data.test_names)
        summary = job.summary(learner, metrics, split=split, value=value, steps=Steps())
        write_report(path, summary, [], {"model": job.options.model, "data set": job.task.name})
        summary.write(job.directory.summary)
    show_result("Result", metrics)
    return 0


ACTION = Action(run)
