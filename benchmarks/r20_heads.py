"""Row 20: an adapter for each head of q, k and v against one LoRA of the same total rank."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.hosts import LR
from benchmarks.measure import Report, compare, pin, ratios
from model.adapters.lora_by_head import HeadConfig, LoraByHead
from model.adapters.methods.lora import ADAPTER, Lora
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.site import HEAD_ROLES, SHARED_INPUT, Site, SiteKey


class Shape(NamedTuple):
    """A projection's sizes: width, heads, heads of keys and values, rank of each head, tokens."""

    width: int
    heads: int
    groups: int
    rank: int
    tokens: int


SHAPES = (
    Shape(576, 9, 3, 1, 512),
    Shape(576, 9, 3, 8, 512),
    Shape(768, 12, 12, 2, 512),
    Shape(1024, 16, 16, 4, 512),
    Shape(256, 4, 4, 2, 256),
)


def _adapter(shape: Shape, count: int, manner: str) -> nn.Module:
    """Return the adapter of a projection of `count` heads."""
    outputs = shape.width // shape.heads * count
    if manner == "one":
        rank = shape.rank * count
        adapter = Lora(shape.width, outputs, rank=rank, alpha=2.0 * rank, dropout=0.0)
        adapter.reset(torch.Generator().manual_seed(0))
        return adapter
    step = 1 if manner == "alternating" and shape.rank > 1 else 0
    heads = [HeadConfig(shape.rank + (-step, step)[number % 2], 2.0 * shape.rank) for number in range(count)]
    by_head = LoraByHead(shape.width, outputs, heads=heads, dropout=0.0)
    sources = [torch.Generator().manual_seed(number) for number in range(count)]
    by_head.reset(sources, random_b=[False] * count)
    return by_head


def _step(shape: Shape, manner: str, autocast: bool) -> Callable[[], None]:
    """Return forward, backward and AdamW of q, k and v with adapters."""
    torch.manual_seed(0)
    attachments, linears = {}, []
    for role, count in zip(HEAD_ROLES, (shape.heads, shape.groups, shape.groups)):
        outputs = shape.width // shape.heads * count
        linears.append(nn.Linear(shape.width, outputs, bias=False).requires_grad_(False))
        site = Site(SiteKey(0, role), role, shape.width, outputs)
        adapter = _adapter(shape, count, manner)
        attachments[site.key] = LinearAttachment(site, linears[-1], adapter, ADAPTER.fused_forward)
    share_inputs(attachments, SHARED_INPUT)
    parameters = [p for one in attachments.values() for p in one.adapter.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, fused=True)
    x = torch.randn(shape.tokens, shape.width, requires_grad=True)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
    with cast:
        grads = [torch.randn_like(linear(x)) for linear in linears]

    def run() -> None:
        with cast:
            outputs: Sequence[Tensor] = [linear(x) for linear in linears]
        torch.autograd.backward(outputs, grads)
        x.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Measure equal and alternating ranks of heads against one adapter over all of them."""
    pin()
    report = Report("20", "q, k, v alone: an adapter for each head, ratio to one LoRA of the same total rank")
    for autocast in (False, True):
        for shape in SHAPES:
            manners = ("one", "equal", "alternating") if shape.rank > 1 else ("one", "equal")
            times = compare({m: _step(shape, m, autocast) for m in manners}, rounds=9, repeats=6)
            sizes = f"{shape.width}, {shape.heads} ({shape.groups}) heads, r {shape.rank} each"
            for manner in manners[1:]:
                what = f"{'bf16 autocast' if autocast else 'fp32'}: {sizes}, {manner} ranks"
                report.add(what, ratios(times, manner, "one"))
    report.finish()


if __name__ == "__main__":
    main()
