"""`test`: evaluate a plain model, or one with a trained adapter."""

from configs.runtime import console
from configs.runtime.console import is_quiet
from model.run.action import Action
from model.run.evaluation import evaluate_test, show_result, write_predictions
from model.run.job import Job, Steps
from model.run.report import write_report
from model.run.start import show_start, write_first_files
from model.training.callbacks.metrics_record import close_metrics
from model.training.trainer import build_trainer


def run(job: Job) -> int:
    """Evaluate on the test set, or on the validation sets where no test set has labels; return 0."""
    job.freeze_inactive()
    learner = job.learner(job.data.test_names)
    show_start(job, learner)
    directory = job.directory
    if directory is None:
        return 0
    write_first_files(job, directory)
    trainer = build_trainer(job.options, None, quiet=is_quiet(), layers=job.assembled.layers)
    metrics = evaluate_test(job, trainer, learner, directory.path)
    if job.options.write_predictions:
        write_predictions(job, trainer, learner, directory.path)
    if console.rank() == 0:
        close_metrics(directory.metrics, 0, 0, metrics)
        value = metrics.get(f"test/{job.task.selection}")
        split = ", ".join(job.data.test_names)
        summary = job.summary(learner, metrics, split=split, value=value, steps=Steps())
        facts = {"model": job.options.model, "data set": job.task.name}
        write_report(directory.path, summary, [], facts)
        summary.write(directory.summary)
    show_result("Result", metrics)
    return 0


ACTION = Action(run)
