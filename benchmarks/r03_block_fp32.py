"""Row 3: the seven linears of a layer alone, fp32, LoRA r 8 and r 64."""

from benchmarks.hosts import block_steps
from benchmarks.measure import Report, compare, pin, ratios


def main() -> None:
    """Measure LoRA and PEFT against the floor at both ranks."""
    pin()
    report = Report("03", "block of seven linears (SmolLM2's widths), fp32, 512 tokens, ratio to the floor")
    for rank, goal, peer in ((8, 1.09, "1.36"), (64, 1.30, "1.54")):
        times = compare(block_steps(rank), rounds=9, repeats=8)
        report.add(f"r {rank} LoRA / floor", ratios(times, "lora", "floor"), goal=goal, peer=peer)
        report.add(f"r {rank} PEFT / floor", ratios(times, "peft", "floor"))
    report.finish()


if __name__ == "__main__":
    main()
