"""The routers of a trained run on its validation data: `search/router_usage.toml` and a picture of it."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import lightning as L
import torch

from configs.files import write_bytes, write_text
from model.heat_maps import heat_map
from model.job import Job
from model.learners.finetune import FineTuner
from model.router_usage import RouterRecord, usage_panels, usage_text

_BATCHES = 32
"""Of each validation set."""


def report_routers(job: Job, trainer: L.Trainer, learner: FineTuner) -> Mapping[str, Path]:
    """Record how routers weigh their experts on this process's validation batches, and draw it.

    Returns:
        Heading -> picture; nothing where no router is on.
    """
    network, record = learner.network, RouterRecord(learner.network, learner.attachments)
    if not record.routed:
        return {}
    training, unused = network.training, learner.objective.evaluation(learner.device)
    network.eval()
    try:
        with record, torch.no_grad():
            for record.group, loader in zip(job.data.validation_names, job.data.val_dataloader()):
                for batch in islice(loader, _BATCHES):
                    with trainer.precision_plugin.forward_context():
                        # Not the loss: an evaluation set may hold other targets than training has.
                        learner.objective.evaluate(network, trainer.strategy.batch_to_device(batch), unused)
    finally:
        network.train(training)
    folder, usage = job.directory.path / "search", record.usage()
    folder.mkdir(exist_ok=True)
    write_text(folder / "router_usage.toml", usage_text(usage))
    pictures = {}
    for group, sites in usage.items():
        whole = group == job.data.validation_names[0]
        path = folder / ("router_usage.png" if whole else f"router_usage_{group}.png")
        write_bytes(path, heat_map(usage_panels(sites), "mean over tokens", "linear"))
        pictures[f"Routers on {group}"] = path
    return pictures
