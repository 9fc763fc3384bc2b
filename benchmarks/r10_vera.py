"""Row 10: VeRA r 256 and r 1024 against PEFT's."""

import torch

from benchmarks.measure import Report, compare, pin, ratios
from benchmarks.vectors import floor, ours, theirs

SETTINGS = ((256, "0.89", 0.85), (1024, "0.88", 0.80))
"""(rank, the best prototype's figure, goal)."""


def main() -> None:
    """Measure VeRA with shared pairs, with a pair for each site, and PEFT's."""
    pin()
    report = Report("10", "block of seven linears (SmolLM2's widths), 512 tokens, VeRA, ratio to PEFT")
    for autocast in (None, torch.bfloat16):
        for rank, peer, goal in SETTINGS:
            steps = {
                "floor": floor(autocast),
                "shared": ours("vera", rank, autocast=autocast),
                "apart": ours("vera", rank, autocast=autocast, shared=False),
                "peft": theirs(rank, autocast),
            }
            times = compare(steps, rounds=7, repeats=2)
            what = f"{'fp32' if autocast is None else 'bf16 autocast'}: r {rank}"
            kept = {"goal": goal, "peer": f"1 ({peer} best)"} if autocast is None else {}
            report.add(f"{what}, shared pairs", ratios(times, "shared", "peft"), **kept)
            report.add(f"{what}, a pair for each site", ratios(times, "apart", "peft"))
            report.add(f"{what}, floor without adapters", ratios(times, "floor", "peft"))
    report.finish()


if __name__ == "__main__":
    main()
