"""Row 2: a training step of SmolLM2-135M in fp32 with LoRA r 8 on queries and values."""

from benchmarks.hosts import smollm2, variants
from benchmarks.measure import Report, compare, pin, ratios


def main() -> None:
    """Measure LoRA and PEFT against the floor."""
    pin()
    times = compare(variants(smollm2, ("q_proj", "v_proj")))
    report = Report("02", "SmolLM2-135M fp32 4x128, LoRA r 8 on q and v, ratio to the floor")
    report.add("LoRA / floor", ratios(times, "lora", "floor"), goal=1.03, peer="1.09")
    report.add("PEFT / floor", ratios(times, "peft", "floor"))
    report.add("LoRA / PEFT", ratios(times, "lora", "peft"))
    report.finish()


if __name__ == "__main__":
    main()
