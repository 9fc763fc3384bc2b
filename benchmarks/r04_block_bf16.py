"""Row 4: the seven linears of a layer alone in bf16, LoRA r 8, against PEFT."""

import torch

from benchmarks.hosts import block_steps
from benchmarks.measure import Report, compare, pin, ratios


def main() -> None:
    """Measure under autocast with the frozen weights stored in bf16 for all, and in fp32 for all."""
    pin()
    report = Report("04", "block of seven linears, bf16, r 8, 512 tokens, ratio to PEFT")
    for base, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        steps = block_steps(8, base=base, autocast=torch.bfloat16)
        times = compare(steps, rounds=9, repeats=8)
        goal = 0.75 if base == torch.bfloat16 else None
        report.add(f"autocast, base {name}: LoRA / PEFT", ratios(times, "lora", "peft"), goal=goal, peer="1")
        report.add(f"autocast, base {name}: LoRA / floor", ratios(times, "lora", "floor"))
        report.add(f"autocast, base {name}: PEFT / floor", ratios(times, "peft", "floor"))
    report.finish()


if __name__ == "__main__":
    main()
