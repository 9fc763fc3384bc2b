"""Row 21: scoring batches against training steps on the same batches: time, and the peak of tensors."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.hosts import Host, add_lora, opt_256, smollm2, trained
from benchmarks.measure import Report, compare, peak_bytes, pin, ratios, tensor_bytes
from benchmarks.scoring import batches_like, scoring, training

_HOSTS: dict[str, tuple[Callable[[], Host], int]] = {
    "OPT-256 4x64, 32 batches": (opt_256, 32),
    "SmolLM2-135M 4x128, 1 batch": (smollm2, 1),
}
_METHODS = ("grad_norm", "snip", "fisher", "synflow")


def bytes_of(host_name: str, work: str, recomputes: bool) -> int:
    """Return the peak of a training step with its two moments, or of an importance test of two batches."""
    pin()
    host = _HOSTS[host_name][0]()
    attachments = add_lora(host)
    parameters = trained(host.network, attachments)
    if recomputes:
        host.network.gradient_checkpointing_enable({"use_reentrant": False})
    batches = batches_like(host, 2)
    gc.collect()
    if work == "training":
        return peak_bytes(training(host, parameters, batches)) + 2 * tensor_bytes(parameters)
    return peak_bytes(scoring(host, work, attachments, batches))


def main() -> None:
    """Measure time on one network, and memory each in a process of its own."""
    pin()
    report = Report("21", "importance tests, LoRA r 8 on all linears, fp32, ratio to as many training steps")
    for name, (make, count) in _HOSTS.items():
        host = make()
        attachments, batches = add_lora(host), batches_like(host, count)
        steps = {"training": training(host, trained(host.network, attachments), batches)}
        steps |= {method: scoring(host, method, attachments, batches) for method in _METHODS}
        times = compare(steps)
        for method in _METHODS:
            what = f"{name}: {method}" + (", its one batch" if method == "synflow" else "")
            goal = None if method == "synflow" else 1.0
            report.add(f"{what}, time", ratios(times, method, "training"), goal=goal)
        for recomputes, methods in ((False, _METHODS), (True, ("grad_norm",))):
            held = {}
            for work in ("training", *methods):
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    held[work] = pool.submit(bytes_of, name, work, recomputes).result()
            print(name, {work: f"{size / 2**20:.1f} MiB" for work, size in held.items()}, file=sys.stderr)
            manner = ", layers recomputed in both" if recomputes else ""
            for method in methods:
                goal = None if method == "synflow" else 1.0
                what = f"{name}: {method}, peak of tensors{manner}"
                report.add(what, [held[method] / held["training"]], goal=goal)
    report.finish()


if __name__ == "__main__":
    main()
