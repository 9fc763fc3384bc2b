"""Finish a training run: load the best step's weights, export and evaluate them, write the record."""

from pathlib import Path

import lightning as L

from configs.runs.adapter_record import FLOW
from configs.runs.run_directory import RunDirectory
from configs.runtime import console
from configs.runtime.files import replacing_directory
from model.exchange.adapter_directory import adds_norms
from model.exchange.export import collect, export
from model.exchange.peft_format import PeftAdapter
from model.network.snapshot import save_network
from model.run.evaluation import evaluate_test, show_result, write_predictions
from model.run.job import NO_SEARCH, Job, SearchResult, Steps
from model.run.model_card import CardFacts, Result, model_card
from model.run.report import write_report
from model.run.router_report import record_routers, report_routers
from model.tensors.checkpoint import load_checkpoint
from model.training.callbacks.checkpoints import Checkpoints
from model.training.callbacks.metrics_record import close_metrics, read_metrics
from model.training.distributed.sharding import synchronised_forwards
from model.training.learners.finetune import FineTuner

_TASK_TYPES = {"language_modeling": "CAUSAL_LM"}


def finish(
    job: Job,
    directory: RunDirectory,
    trainer: L.Trainer,
    learner: FineTuner,
    saver: Checkpoints,
    searched: SearchResult = NO_SEARCH,
) -> None:
    """Load the best step's weights, export and evaluate them, write `summary.json` and `report.md`.

    Args:
        job: the run.
        directory: that of the run.
        trainer: from `fit`.
        learner: the trained network.
        saver: knows the best step and its metric.
        searched: what a search or freezing decided.
    """
    rank = console.rank()
    best = trainer.strategy.broadcast(str(directory.best))
    learner.load_trained(load_checkpoint(Path(best)), best)
    rows = read_metrics(directory.metrics) if rank == 0 else []
    metrics = {
        name: value for step, _, name, value in rows if step == saver.best_step and name != "train/loss"
    }
    with synchronised_forwards(learner.network):
        if rank == 0:
            _export(job, learner, directory, saver)
        recorder = record_routers(job, trainer, learner)
    routers = report_routers(job, directory, trainer, recorder)
    if "test" in job.data.test_names:
        tested = evaluate_test(job, trainer, learner, directory.path)
        metrics |= tested
        if rank == 0:
            epoch = next((epoch for step, epoch, *_ in reversed(rows) if step == saver.best_step), 0)
            close_metrics(directory.metrics, saver.best_step, epoch, tested)
    if job.options.write_predictions:
        write_predictions(job, trainer, learner, directory.path)
    if rank == 0:
        steps = Steps(saver.best_step, max((step for step, *_ in rows), default=0))
        summary = job.summary(
            learner, metrics, split="validation", value=saver.best_value, steps=steps, searched=searched
        )
        facts = {"model": job.options.model, "data set": job.task.name, "task": job.options.task}
        if job.assembled.attachments:
            on, active = summary.search, learner.active_parameters()
            facts["modules on"] = f"{on['enabled']} of {on['eligible']}, {active:,} parameters active"
        write_report(directory.path, summary, rows, facts, {**searched.pictures, **routers})
        summary.write(directory.summary)
    show_result(f"Result at step {saver.best_step}", metrics)
    console.say(f"run directory: {directory.path}")


def _export(job: Job, learner: FineTuner, directory: RunDirectory, saver: Checkpoints) -> None:
    """Write `adapter/`, or `model/` after full fine-tuning."""
    assembled = job.assembled
    if not assembled.attachments:
        with replacing_directory(directory.path / "model") as draft:
            backbone = assembled.backbone
            save_network(assembled.network, assembled.tokenizer, backbone.settings, draft)
        return
    metadata = {
        "base_digest": assembled.backbone.digest,
        "evaluation": job.evaluation_options(),
        "template": job.task.template,
        **({"templates": dict(job.task.templates)} if job.task.templates else {}),
        "labels": list(job.task.classes),
        "training_alpha": {str(key): a.adapter.alpha for key, a in assembled.attachments.items() if a.active},
    }
    if assembled.stream is not None:
        metadata["shortcuts"] = vars(assembled.stream.wiring)
    if assembled.fused is not None:
        metadata[FLOW] = dict(assembled.fused)
    adapter = collect(
        assembled.network, assembled.attachments, assembled.methods, assembled.saved_modules, metadata
    )
    batch = next(iter(job.data.val_dataloader()[0]))
    batch = {name: tensor[:4].to(learner.device) for name, tensor in batch.items()}
    difference = export(
        directory.adapter,
        adapter,
        assembled.network,
        assembled.attachments,
        batch,
        assembled.stream,
        card=model_card(_card_facts(job, adapter, saver)),
        task_type=_TASK_TYPES.get(job.task.objective, "SEQ_CLS"),
        base=job.base,
        dropout=max(
            (a.adapter.dropout for key, a in assembled.attachments.items() if key in assembled.sites),
            default=0.0,
        ),
    )
    console.say(f"adapter: {directory.adapter} (read back, largest difference of logits {difference:.1e})")


def _card_facts(job: Job, adapter: PeftAdapter, saver: Checkpoints) -> CardFacts:
    """Return what the adapter's model card states."""
    recipes = [one.recipe for one in adapter.extra.values()]
    only_here = {recipe.method for recipe in recipes if not recipe.converted}
    only_here |= {"shortcut"} if adds_norms(adapter.metadata) else set()
    value = saver.best_value
    classes = {"regression": 1, "classification": len(job.task.classes)}
    return CardFacts(
        base=job.options.backbone_model or job.options.load or job.base,
        dataset=job.task.name,
        hubs=job.task.hubs,
        classes=classes.get(job.task.objective, 0),
        task=job.options.task,
        methods=set(job.assembled.methods.values()),
        result=None if value is None else Result(job.selection_metric, value, saver.best_step),
        template=job.task.template,
        only_here=sorted(only_here),
    )
