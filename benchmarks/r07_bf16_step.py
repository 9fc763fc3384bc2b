"""Row 7: a bf16 step with every measure we have, against PEFT's under autocast as its users run it."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.hosts import (
    Host,
    add_lora,
    add_peft,
    open_embeddings,
    roberta,
    smollm2,
    step,
    store_frozen,
    trained,
)
from benchmarks.measure import Report, compare, pin, ratios


def _ours(make: Callable[..., Host], attention: str, *, stored: bool) -> Callable[[], Tensor]:
    host = make(autocast=torch.bfloat16, attention=attention)
    run = step(host, trained(host.network, add_lora(host)))
    if stored:
        store_frozen(host)
    return run


def _floor(make: Callable[..., Host]) -> Callable[[], Tensor]:
    """Return the step of the frozen network with the same measures: what no adapter can go below."""
    host = make(autocast=torch.bfloat16, attention="eager")
    open_embeddings(host.network)
    run = step(host, trained(host.network))
    store_frozen(host)
    return run


def _theirs(make: Callable[..., Host]) -> Callable[[], Tensor]:
    host = make(autocast=torch.bfloat16)
    add_peft(host)
    return step(host, trained(host.network), fused=False, loss=lambda: host.network(**host.batch).loss)


def main() -> None:
    """Measure the measures one after the other on both hosts."""
    pin()
    report = Report("07", "bf16 step, LoRA r 8 on all linears, ratio to PEFT under autocast")
    for name, make in (("SmolLM2-135M 4x128", smollm2), ("RoBERTa-base size 8x96", roberta)):
        times = compare(
            {
                "peft": _theirs(make),
                "node": _ours(make, "sdpa", stored=False),
                "stored": _ours(make, "sdpa", stored=True),
                "eager": _ours(make, "eager", stored=True),
                "floor": _floor(make),
            }
        )
        report.add(f"{name}: one node a group, fused AdamW", ratios(times, "node", "peft"))
        report.add(
            f"{name}: and frozen linears in bf16", ratios(times, "stored", "peft"), goal=0.60, peer="1"
        )
        report.add(f"{name}: and eager attention", ratios(times, "eager", "peft"), goal=0.60, peer="1")
        report.add(f"{name}: the same without adapters (floor)", ratios(times, "floor", "peft"))
    report.finish()


if __name__ == "__main__":
    main()
