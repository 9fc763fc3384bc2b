"""Row 17: a frozen base stored in bf16 under fp32 adapters, against all in fp32: step, memory, loss."""

import gc
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from benchmarks.hosts import SMOLLM2, Host, add_lora, language_batch, smollm2, step, text_batch, trained
from benchmarks.measure import Report, compare, peak_bytes, pin, ratios, tensor_bytes
from model.network.backbone import load_backbone
from model.network.source import resolve

_STEPS = 12


def _bytes(variant: str) -> int:
    """Return base, adapters, moments and a step's peak of one variant."""
    pin()
    host = _make(variant)
    parameters = trained(host.network, add_lora(host))
    gc.collect()
    held = tensor_bytes([*host.network.parameters(), *host.network.buffers()]) + 3 * tensor_bytes(parameters)
    return held + peak_bytes(step(host, parameters))


def _make(variant: str) -> Host:
    if variant.startswith("bf16 base"):
        return smollm2(base="bfloat16", attention="eager" if variant.endswith("eager attention") else "sdpa")
    return smollm2(autocast=torch.bfloat16 if variant == "autocast" else None)


def _losses(variant: str) -> list[float]:
    """Train on a dozen batches of text and return their losses."""
    host = _make(variant)
    backbone = load_backbone(resolve(SMOLLM2, "--load"), "language_modeling", pretrained=True)
    run = step(host, trained(host.network, add_lora(host)))
    losses = []
    for number in range(_STEPS):
        host.batch = language_batch(text_batch(backbone.tokenizer, number))
        losses.append(run().item())
    return losses


def main() -> None:
    """Measure step, memory and losses of bf16 base and of autocast."""
    pin()
    names = ("fp32", "autocast", "bf16 base", "bf16 base, eager attention")
    times = compare(
        {name: step(host, trained(host.network, add_lora(host))) for name in names for host in [_make(name)]}
    )
    held = {}
    for name in names:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            held[name] = pool.submit(_bytes, name).result()
    losses = {name: _losses(name) for name in names}
    report = Report("17", "SmolLM2-135M 4x128, LoRA r 8 on all linears, ratio to all fp32")
    for name in names[1:]:
        is_base = name.startswith("bf16 base")
        peer, goals = ("0.59 / 0.98", (0.42, 0.68)) if is_base else ("", (None, None))
        report.add(f"{name}: step", ratios(times, name, "fp32"), goal=goals[0], peer=peer)
        report.add(f"{name}: memory (peak of tensors)", [held[name] / held["fp32"]], goal=goals[1], peer=peer)
        gaps = [a - b for a, b in zip(losses[name], losses["fp32"])]
        report.add(
            f"{name}: |mean loss difference| over {_STEPS} steps", [abs(statistics.mean(gaps))], goal=0.005
        )
    report.finish()


if __name__ == "__main__":
    main()
