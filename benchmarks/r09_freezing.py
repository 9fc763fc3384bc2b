"""Row 9: AFLoRA r 4 whose matrices are frozen against AFLoRA whose matrices train."""

from benchmarks.measure import Report, compare, pin, ratios
from benchmarks.vectors import floor, ours


def main() -> None:
    """Measure the node, plain autograd as published, and the floor."""
    pin()
    report = Report("09", "block of seven linears (SmolLM2's widths), fp32, 512 tokens, AFLoRA r 4")
    steps = {
        "floor": floor(),
        "trains": ours("aflora", 4, uv_rule="all"),
        "still": ours("aflora", 4, uv_rule="all", still=True),
        "plain trains": ours("aflora", 4, uv_rule="all", plain=True),
        "plain still": ours("aflora", 4, uv_rule="all", plain=True, still=True),
    }
    times = compare(steps, rounds=9, repeats=8)
    report.add("frozen / trainable, one node", ratios(times, "still", "trains"), goal=0.90, peer="1.00")
    report.add("frozen / trainable, plain autograd", ratios(times, "plain still", "plain trains"))
    report.add("one node / plain autograd, trainable", ratios(times, "trains", "plain trains"))
    report.add("one node / plain autograd, frozen", ratios(times, "still", "plain still"))
    report.add("trainable / floor", ratios(times, "trains", "floor"))
    report.add("frozen / floor", ratios(times, "still", "floor"))
    report.finish()


if __name__ == "__main__":
    main()
