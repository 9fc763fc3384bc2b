"""Row 13: SNIP from w * dL/dw, against gradients of mask tensors of ones, as it is published."""

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.hosts import Host, add_lora, opt_256, smollm2
from benchmarks.measure import Report, compare, peak_bytes, pin, ratios, tensor_bytes
from benchmarks.scoring import batches_like, scoring

_HOSTS: dict[str, Callable[[], Host]] = {"SmolLM2-135M 4x128": smollm2, "OPT-256 4x64": opt_256}
_COUNTS = {"SmolLM2-135M 4x128": 1, "OPT-256 4x64": 8}


class _Mask(nn.Module):
    """Multiply a tensor by a mask of ones that requires a gradient."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.ones(shape))

    def forward(self, tensor: Tensor) -> Tensor:
        """tensor and result: of the mask's shape."""
        return tensor * self.mask


Way = tuple[Callable[[], Any], list[Tensor]]
"""A test, and the tensors it keeps between two calls."""


def _ours(host: Host, batches: Sequence[Any]) -> Way:
    return scoring(host, "snip", add_lora(host), batches), []


def _masked(host: Host, batches: Sequence[Any]) -> Way:
    """Return the published way: gradients of masks gathered over the batches, then their sizes summed."""
    attachments = add_lora(host)
    draw = torch.Generator().manual_seed(0)
    masks = {}
    for key, attachment in attachments.items():
        adapter = attachment.adapter
        adapter.B.data.copy_(0.02 * torch.randn(adapter.B.shape, generator=draw))
        masks[key] = []
        for name in ("A", "B"):
            tensor = getattr(adapter, name).requires_grad_(False)
            mask = _Mask(tensor.shape)
            parametrize.register_parametrization(adapter, name, mask)
            masks[key].append(mask.mask)
    host.network.eval()

    def run() -> dict[Any, float]:
        for batch in batches:
            with host.autocast():
                loss = host.objective.loss(host.network, batch)
            loss.backward()
        scores = {key: sum(float(mask.grad.abs().sum()) for mask in pair) for key, pair in masks.items()}
        for pair in masks.values():
            for mask in pair:
                mask.grad = None
        return scores

    return run, [mask for pair in masks.values() for mask in pair]


_WAYS = {"ours": _ours, "masks": _masked}


def bytes_of(host_name: str, way: str) -> int:
    """Return the peak of one test with what it keeps all the time: the masks."""
    pin()
    host = _HOSTS[host_name]()
    run, kept = _WAYS[way](host, batches_like(host, 2))
    gc.collect()
    return peak_bytes(run) + tensor_bytes(kept)


def main() -> None:
    """Measure time side by side and memory each in a process of its own."""
    pin()
    report = Report("13", "SNIP from w * gradient, LoRA r 8 on all linears, fp32, ratio to mask tensors")
    for name, make in _HOSTS.items():
        steps = {}
        for way, built in _WAYS.items():
            host = make()
            steps[way], _ = built(host, batches_like(host, _COUNTS[name]))
        found = {way: list(steps[way]().values()) for way in steps}
        torch.testing.assert_close(
            torch.tensor(found["ours"]).sum(), torch.tensor(found["masks"]).sum(), rtol=0.2, atol=0
        )
        report.add(f"{name}: time", ratios(compare(steps), "ours", "masks"), goal=0.92, peer="1")
        held = {}
        for way in _WAYS:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                held[way] = pool.submit(bytes_of, name, way).result()
        report.add(f"{name}: peak of tensors", [held["ours"] / held["masks"]], goal=0.82, peer="1")
    report.finish()


if __name__ == "__main__":
    main()
