"""Rows 14 and 15: a quarter of the modules on, spread or on top; what is off is skipped, not multiplied."""

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor

from benchmarks.hosts import Host, add_lora, open_embeddings, smollm2, step, trained
from benchmarks.measure import Report, compare, pin, ratios
from model.precision import frozen_stored_for
from model.site import SiteKey

_SHARE = 4


def _switched(host: Host, on: set[SiteKey]) -> Callable[[], Tensor]:
    """Attach everywhere and switch off all but the chosen, as a search does."""
    attachments = add_lora(host)
    for key, attachment in attachments.items():
        attachment.enabled = key in on
        attachment.adapter.requires_grad_(key in on)
    return step(host, trained(host.network, attachments))


def _static(host: Host, on: set[SiteKey]) -> Callable[[], Tensor]:
    """Attach to the chosen alone, as a TOML that names them does."""
    return step(host, trained(host.network, add_lora(host, keys=on)))


def _floor(host: Host) -> Callable[[], Tensor]:
    open_embeddings(host.network)
    return step(host, trained(host.network))


def _spread() -> None:
    keys = sorted(smollm2().sites)
    chosen = set(Random(0).sample(keys, len(keys) // _SHARE))
    times = compare({"switched": _switched(smollm2(), chosen), "static": _static(smollm2(), chosen)})
    report = Report(
        "14", "SmolLM2-135M fp32 4x128, 25 % of the modules on, ratio to a static TOML of the same"
    )
    report.add("switched off / never attached", ratios(times, "switched", "static"), goal=1.02, peer="1.25")
    report.finish()


def _top() -> None:
    report = Report("15", "SmolLM2-135M 4x128, only the top quarter of the layers on, ratio to the floor")
    for name, autocast, goal in (("fp32", None, 0.60), ("bf16 autocast", torch.bfloat16, 0.53)):
        ours, floor = smollm2(autocast=autocast), smollm2(autocast=autocast)
        keys = sorted(ours.sites)
        layers = keys[-1].layer + 1
        top = {key for key in keys if key.layer >= layers - layers // _SHARE}
        steps = {"lora": _switched(ours, top), "floor": _floor(floor)}
        if autocast is not None:
            for host in (ours, floor):  # for the rest of the process
                frozen_stored_for(host.network, "bf16-mixed").__enter__()
        report.add(name, ratios(compare(steps), "lora", "floor"), goal=goal, peer="1.03 (forced)")
    report.finish()


def main() -> None:
    """Measure both rows."""
    pin()
    _spread()
    _top()


if __name__ == "__main__":
    main()
