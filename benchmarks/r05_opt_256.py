"""Row 5: a training step of OPT with hidden size 256 in fp32, LoRA r 8 on all linears."""

from benchmarks.hosts import opt_256, variants
from benchmarks.measure import Report, compare, pin, ratios


def main() -> None:
    """Measure LoRA and PEFT against the floor."""
    pin()
    times = compare(variants(opt_256), rounds=9, repeats=8)
    report = Report("05", "OPT hidden 256, 6 layers, fp32 4x64, LoRA r 8 on all linears, ratio to the floor")
    report.add("LoRA / floor", ratios(times, "lora", "floor"), goal=1.18, peer="1.44")
    report.add("PEFT / floor", ratios(times, "peft", "floor"))
    report.add("LoRA / PEFT", ratios(times, "lora", "peft"))
    report.finish()


if __name__ == "__main__":
    main()
