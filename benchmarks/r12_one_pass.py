"""Row 12: LoRA and shortcuts scored in one pass, against a pass for each."""

from collections.abc import Callable

from benchmarks.hosts import Host, add_lora, opt_256, smollm2
from benchmarks.measure import Report, compare, pin, ratios
from benchmarks.scoring import add_shortcuts, batches_like, scoring

_HOSTS: dict[str, tuple[Callable[[], Host], int]] = {
    "SmolLM2-135M 4x128, 1 batch": (smollm2, 1),
    "OPT-256 4x64, 8 batches": (opt_256, 8),
}


def main() -> None:
    """Measure both ways on the same attached network."""
    pin()
    report = Report(
        "12", "grad_norm of LoRA r 8 on all linears and every shortcut r 8, fp32, ratio to two passes"
    )
    for name, (make, count) in _HOSTS.items():
        host = make()
        lora, shortcuts = add_lora(host), add_shortcuts(host)
        batches = batches_like(host, count)
        one = scoring(host, "grad_norm", lora | shortcuts, batches)
        parts = [scoring(host, "grad_norm", part, batches) for part in (lora, shortcuts)]
        times = compare({"one": one, "two": lambda parts=parts: [part() for part in parts]})
        report.add(f"{name}: one pass / two", ratios(times, "one", "two"), goal=0.47, peer="1")
    report.finish()


if __name__ == "__main__":
    main()
