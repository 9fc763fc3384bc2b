"""Row 6: memory of a step above the floor with LoRA r 8 on all linears, against PEFT."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.hosts import Host, add_lora, add_peft, open_embeddings, roberta, smollm2, step, trained
from benchmarks.measure import Report, peak_bytes, pin, tensor_bytes

_HOSTS: dict[str, Callable[[], Host]] = {"SmolLM2-135M 4x128": smollm2, "RoBERTa-base size 8x96": roberta}
_GOALS = {"SmolLM2-135M 4x128": 0.40, "RoBERTa-base size 8x96": 0.19}


def bytes_of(host_name: str, variant: str) -> int:
    """Return a step's peak of tensors, with what trains and the optimiser's two moments."""
    pin()
    host = _HOSTS[host_name]()
    if variant == "floor":
        open_embeddings(host.network)
        parameters = trained(host.network)
    elif variant == "lora":
        parameters = trained(host.network, add_lora(host))
    else:
        add_peft(host)
        parameters = trained(host.network)
    gc.collect()
    return peak_bytes(step(host, parameters)) + 3 * tensor_bytes(parameters)


def main() -> None:
    """Measure each variant in a process of its own."""
    report = Report("06", "peak bytes of tensors above the floor, fp32, all r 8, ratio to PEFT")
    for host, goal in _GOALS.items():
        held = {}
        for variant in ("floor", "lora", "peft"):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                held[variant] = pool.submit(bytes_of, host, variant).result()
        above = {variant: held[variant] - held["floor"] for variant in ("lora", "peft")}
        print(host, {name: f"{count / 2**20:.1f} MiB" for name, count in held.items()}, file=sys.stderr)
        report.add(f"{host}: LoRA / PEFT", [above["lora"] / above["peft"]], goal=goal, peer="1")
        report.add(f"{host}: whole peak, LoRA / floor", [held["lora"] / held["floor"]])
    report.finish()


if __name__ == "__main__":
    main()
