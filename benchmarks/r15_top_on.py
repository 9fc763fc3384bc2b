"""Row 15: only the top quarter of the layers on; nothing flows back below it."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.hosts import Host, open_embeddings, smollm2, step, store_frozen, trained
from benchmarks.measure import Report, compare, pin, ratios
from benchmarks.r14_part_on import SHARE, switched


def _floor(host: Host) -> Callable[[], Tensor]:
    open_embeddings(host.network)
    return step(host, trained(host.network))


def main() -> None:
    """Measure both precisions."""
    pin()
    report = Report("15", "SmolLM2-135M 4x128, only the top quarter of the layers on, ratio to the floor")
    for name, autocast, goal in (("fp32", None, 0.60), ("bf16 autocast", torch.bfloat16, 0.53)):
        ours, floor = smollm2(autocast=autocast), smollm2(autocast=autocast)
        keys = sorted(ours.sites)
        layers = keys[-1].layer + 1
        top = {key for key in keys if key.layer >= layers - layers // SHARE}
        steps = {"lora": switched(ours, top), "floor": _floor(floor)}
        if autocast is not None:
            store_frozen(ours)
            store_frozen(floor)
        report.add(name, ratios(compare(steps), "lora", "floor"), goal=goal, peer="1.03 (forced)")
    report.finish()


if __name__ == "__main__":
    main()
