"""Report how trained routers weigh their experts on validation data: `search/router_usage.toml`, pictures."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch

from configs.runs.run_directory import RunDirectory
from configs.runtime import console
from configs.runtime.files import write_bytes, write_text
from model.assembly.gate_usage import GateRecorder, gates_text
from model.assembly.router_maps import draw_task_types, task_type_maps
from model.assembly.router_usage import RouterRecorder, usage_panels, usage_text
from model.figures.charts import banded_lines
from model.figures.heat_maps import heat_map
from model.run.job import Job
from model.training.learners.finetune import FineTuner

_BATCHES = 32
"""Global batches of each validation set."""
_EXAMPLES = 256
"""Examples, at least, of a validation set with task types."""


class Recorded(NamedTuple):
    """What routers and gates did on this process's share of validation batches."""

    routers: RouterRecorder
    gates: GateRecorder


def record_routers(job: Job, trainer: L.Trainer, learner: FineTuner) -> Recorded:
    """Return the weights that routers give their experts, and gates their sets, on validation batches.

    Processes may make different numbers of forward passes; `report_routers` sums over all of them.
    """
    network, record = learner.network, RouterRecorder(learner.network, learner.attachments)
    gates = GateRecorder(learner.network, learner.attachments)
    if not record.routed and not gates.gates:
        return Recorded(record, gates)
    learner.to(trainer.strategy.root_device)  # Lightning moves it to the CPU after training
    training, unused = network.training, learner.objective.evaluation(learner.device)
    network.eval()
    try:
        with record, gates, torch.no_grad():
            for record.group in job.data.validation_names:
                loader, types = job.data.evaluation_sample(record.group, _BATCHES, _EXAMPLES)
                for number, batch in enumerate(loader):
                    record.set_types(types[number] if types else ())
                    with trainer.precision_plugin.forward_context():
                        # Not the loss: an evaluation set may have other targets than the training set.
                        learner.objective.evaluate(network, trainer.strategy.batch_to_device(batch), unused)
    finally:
        network.train(training)
    return Recorded(record, gates)


def report_gates(
    job: Job, directory: RunDirectory, trainer: L.Trainer, gates: GateRecorder
) -> dict[str, Path]:
    """Write and draw how gates weigh their sets; the arguments and results are those of `report_routers`."""
    if not gates.gates or job.assembled.fused is None:
        return {}
    gates.sum_over_processes(partial(trainer.strategy.reduce, reduce_op="sum"))
    layers, positions = gates.by_layer(), gates.by_position()
    if console.rank() != 0 or not layers:
        return {}
    names = [one["name"] for one in job.assembled.fused["sets"]]
    folder = directory.path / "search"
    folder.mkdir(exist_ok=True)
    write_text(folder / "gates.toml", gates_text(layers, names))
    pictures = {}
    for heading, file, usage in (
        ("layer", "gates.png", list(layers.values())),
        ("position in the text, in tokens", "gates_by_position.png", positions),
    ):
        lines = {n: [(one.mean[i], one.spread[i]) for one in usage] for i, n in enumerate(names)}
        pictures[f"Weights of the sets by {heading}"] = path = folder / file
        write_bytes(path, banded_lines(lines, heading, "weight"))
    return pictures


def report_routers(
    job: Job, directory: RunDirectory, trainer: L.Trainer, recorded: Recorded
) -> Mapping[str, Path]:
    """Write and draw the means over all processes; each of them calls this, the first one writes.

    Returns:
        Heading -> picture; empty where no router and no gate is on, and on the other processes.
    """
    record, pictures = recorded.routers, report_gates(job, directory, trainer, recorded.gates)
    if not record.routed:
        return pictures
    names = job.data.validation_names
    record.sum_over_processes(
        {name: job.data.task_types(name) for name in names}, partial(trainer.strategy.reduce, reduce_op="sum")
    )
    if console.rank() != 0:
        return pictures
    folder, usage, by_type = directory.path / "search", record.usage(), record.usage_by_type()
    folder.mkdir(exist_ok=True)
    write_text(folder / "router_usage.toml", usage_text(usage, by_type))
    for group, sites in usage.items():
        suffix = "" if group == names[0] else f"_{group}"
        pictures[f"Routers on {group}"] = path = folder / f"router_usage{suffix}.png"
        write_bytes(path, heat_map(usage_panels(sites), "mean over tokens", "linear"))
        if group in by_type:
            pictures[f"Routers on {group}, by type of task"] = path = folder / f"router_types{suffix}.png"
            tokens = {kind: max(one.tokens for one in own.values()) for kind, own in by_type[group].items()}
            write_bytes(path, draw_task_types(task_type_maps(by_type[group], sites), tokens))
    return pictures
