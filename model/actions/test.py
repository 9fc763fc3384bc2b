"""`test`: evaluate a plain, pretrained or trained model."""

from configs import console
from model.callbacks.record import close_metrics
from model.job import Job
from model.opening import is_quiet, show_start, write_first_files
from model.report import Summary, write_report
from model.scoring import score, show_result, write_predictions
from model.training import build_trainer


def run(job: Job) -> int:
    """Score the model on the test set, or on the validation sets of a task whose test set has no labels."""
    learner = job.learner(job.data.test_names)
    show_start(job, learner)
    if job.directory is None:
        return 0
    write_first_files(job)
    trainer = build_trainer(job.options, None, quiet=is_quiet())
    path = job.directory.path
    metrics = score(job, trainer, learner, path)
    if job.options.write_predictions:
        write_predictions(job, trainer, learner, path)
    if console.rank() == 0:
        close_metrics(job.directory.metrics, 0, 0, metrics)
        groups = learner.groups()
        metric = {
            "name": job.selected,
            "direction": "max" if job.task.maximise else "min",
            "split": ", ".join(job.data.test_names),
            "value": metrics.get(f"test/{job.task.selection}"),
            "best_step": 0,
        }
        search = {
            "decisions": 0,
            "enabled": sum(attachment.active for attachment in job.assembled.attachments.values()),
            "eligible": len(job.assembled.attachments),
        }
        summary = Summary(metric, metrics, groups | {"total": sum(groups.values())}, 0, job.rows, search)
        write_report(path, summary, [], {"model": job.options.model, "data set": job.task.name})
        summary.write(job.directory.summary)
    show_result("Result", metrics)
    return 0


ACTION = run
