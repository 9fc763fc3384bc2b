"""Probes for the rows on scoring: what an importance test hands to a heuristic, on the benchmark's hosts."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.hosts import LR, Host
from configs.runtime import kinds
from model.injection.attach import attach, locate_stream
from model.injection.attachment import Attachment
from model.injection.residual_stream import Stream
from model.network.family import dimensions
from model.plan.adapter_config import AdapterConfig
from model.search.heuristic import Probe
from model.search.saliency import measure
from model.site import SiteKey

Batch = Mapping[str, Tensor]


def add_shortcuts(host: Host, rank: int = 8) -> dict[SiteKey, Attachment]:
    """Attach every residual and cross-layer shortcut, as a run of FAMILY_lora_ags does."""
    stream = Stream(host.network, host.family, dimensions(host.network.config).layers)
    sites = locate_stream(stream)
    config = AdapterConfig(rank, 2.0 * rank, 0.0, "default", disabled=False, method="shortcut")
    return attach(host.network, sites, dict.fromkeys(sites, config), 0, "benchmark", stream)


def scoring(
    host: Host, name: str, attachments: Mapping[SiteKey, Attachment], batches: Sequence[Batch]
) -> Callable[[], Mapping[SiteKey, float]]:
    """Return an importance test of the attachments as one call, with a random B where a static test has it.

    Args:
        host: in training mode; it comes back so.
        name: the heuristic.
        attachments: what is scored.
        batches: what it reads.
    """
    kind = kinds.load(kinds.HEURISTICS, name)
    probe = Probe(
        network=host.network,
        objective=host.objective,
        attachments=attachments,
        batches=batches,
        options=kind.options(),
        precision=host.autocast,
    )
    return lambda: measure(kind, probe, 0 if kind.random_b else None)


def batches_like(host: Host, count: int) -> list[Batch]:
    """Return batches of the host's shape with other tokens, from a fixed seed."""
    draw = torch.Generator().manual_seed(1)
    first = host.batch["input_ids"]
    made = []
    for _ in range(count):
        ids = torch.randint(10, 8000, first.shape, generator=draw)
        is_language = host.batch["labels"].shape == first.shape
        made.append({**host.batch, "input_ids": ids, **({"labels": ids.clone()} if is_language else {})})
    return made


def training(host: Host, parameters: Sequence[Tensor], batches: Sequence[Batch]) -> Callable[[], None]:
    """Return a training step for each batch: forward, backward, AdamW over the parameters."""
    optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)

    def run() -> None:
        for batch in batches:
            with host.autocast():
                loss = host.objective.loss(host.network, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run
