"""Report how trained routers weigh their experts on validation data: `search/router_usage.toml`, pictures."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import lightning as L
import torch

from configs.runs.run_directory import RunDirectory
from configs.runtime import console
from configs.runtime.files import write_bytes, write_text
from model.assembly.router_maps import draw_task_types, task_type_maps
from model.assembly.router_usage import RouterRecorder, usage_panels, usage_text
from model.figures.heat_maps import heat_map
from model.run.job import Job
from model.training.learners.finetune import FineTuner

_BATCHES = 32
"""Global batches of each validation set."""
_EXAMPLES = 256
"""Examples, at least, of a validation set with task types."""


def record_routers(job: Job, trainer: L.Trainer, learner: FineTuner) -> RouterRecorder:
    """Return the weights that routers give their experts on this process's share of validation batches.

    Processes may make different numbers of forward passes; `report_routers` sums over all of them.
    """
    network, record = learner.network, RouterRecorder(learner.network, learner.attachments)
    if not record.routed:
        return record
    learner.to(trainer.strategy.root_device)  # Lightning moves it to the CPU after training
    training, unused = network.training, learner.objective.evaluation(learner.device)
    network.eval()
    try:
        with record, torch.no_grad():
            for record.group in job.data.validation_names:
                loader, types = job.data.evaluation_sample(record.group, _BATCHES, _EXAMPLES)
                for number, batch in enumerate(loader):
                    record.set_types(types[number] if types else ())
                    with trainer.precision_plugin.forward_context():
                        # Not the loss: an evaluation set may have other targets than the training set.
                        learner.objective.evaluate(network, trainer.strategy.batch_to_device(batch), unused)
    finally:
        network.train(training)
    return record


def report_routers(
    job: Job, directory: RunDirectory, trainer: L.Trainer, record: RouterRecorder
) -> Mapping[str, Path]:
    """Write and draw the means over all processes; each of them calls this, the first one writes.

    Returns:
        Heading -> picture; empty where no router is on, and on the other processes.
    """
    if not record.routed:
        return {}
    names = job.data.validation_names
    record.sum_over_processes(
        {name: job.data.task_types(name) for name in names}, partial(trainer.strategy.reduce, reduce_op="sum")
    )
    if console.rank() != 0:
        return {}
    folder, usage, by_type = directory.path / "search", record.usage(), record.usage_by_type()
    folder.mkdir(exist_ok=True)
    write_text(folder / "router_usage.toml", usage_text(usage, by_type))
    pictures = {}
    for group, sites in usage.items():
        suffix = "" if group == names[0] else f"_{group}"
        pictures[f"Routers on {group}"] = path = folder / f"router_usage{suffix}.png"
        write_bytes(path, heat_map(usage_panels(sites), "mean over tokens", "linear"))
        if group in by_type:
            pictures[f"Routers on {group}, by type of task"] = path = folder / f"router_types{suffix}.png"
            tokens = {kind: max(one.tokens for one in own.values()) for kind, own in by_type[group].items()}
            write_bytes(path, draw_task_types(task_type_maps(by_type[group], sites), tokens))
    return pictures
