"""Row 11: fused LoRA sets, stacked, against a loop over sets and against one LoRA of rank k r."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.hosts import BLOCK, block_step
from benchmarks.measure import Report, compare, pin, ratios
from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey

WIDTH, TOKENS, SETS, RANK = 576, 512, 3, 64
GOALS = {False: (0.62, "0.67"), True: (0.48, "0.50")}
"""Autocast -> goal and known figure of stacked against the loop."""


class Loop(nn.Module):
    """The published layer's manner: for each set its own two products, weighed and added to the output."""

    def __init__(self, d_in: int, d_out: int, gate: nn.Module) -> None:
        super().__init__()
        self.__dict__["gate"] = gate
        self.A = nn.ModuleList([nn.Linear(d_in, RANK, bias=False) for _ in range(SETS)])
        self.B = nn.ModuleList([nn.Linear(RANK, d_out, bias=False) for _ in range(SETS)])
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        weights = self.gate.weights().to(x.dtype)
        parts = zip(self.A, self.B)
        return sum(weights[..., i : i + 1] * b(a(x)) * 2.0 for i, (a, b) in enumerate(parts))


def _attached(manner: str) -> tuple[dict[str, nn.Linear], list[LinearAttachment], nn.Module | None]:
    """Return the block's linears, their adapters and the gate."""
    linears = {role: nn.Linear(*sizes, bias=False).requires_grad_(False) for role, sizes in BLOCK.items()}
    method = "lora" if manner == "lora" else "flow"
    kind = kinds.load(kinds.ADAPTERS, method)
    rank = SETS * RANK if method == "lora" else 1
    config = AdapterConfig(rank, 2.0 * rank, 0.0, "default", disabled=False, method=method)
    options = kind.options(**({"width": WIDTH, "sets": SETS} if method == "flow" else {}))
    sites = [Site(SiteKey(0, role), role, *sizes) for role, sizes in BLOCK.items()]
    if manner == "floor":
        return linears, [], None
    built = kind.build([PlannedSite(site, config, options) for site in sites], 0)
    gate = next(iter(built.values())).gate if method == "flow" else None
    attachments = {}
    for site in sites:
        adapter, fused = built[site.key], kind.fused_forward
        if manner == "loop":
            adapter, fused = Loop(site.in_features, site.out_features, gate), None
        elif manner == "stacked":
            draw = [(torch.randn(RANK, site.in_features), torch.randn(site.out_features, RANK), 2.0)]
            adapter.take(draw * SETS)
        attachments[site.key] = LinearAttachment(site, linears[site.key.role], adapter, fused)
    share_inputs(attachments, SHARED_INPUT)
    return linears, list(attachments.values()), gate


def _step(manner: str, autocast: bool) -> Callable[[], None]:
    """Return forward, backward and AdamW of a block's linears; the attention between them is left out."""
    torch.manual_seed(0)
    linears, attachments, gate = _attached(manner)
    parameters = [p for one in attachments for p in one.adapter.parameters() if p.requires_grad]
    parameters = list(gate.parameters()) if gate is not None else parameters

    def forward(x: Tensor) -> tuple[Tensor]:
        if gate is not None:
            gate.read(x)
        q, k, v = (linears[role](x) for role in ("q_proj", "k_proj", "v_proj"))
        h = linears["o_proj"](q + torch.cat([k, v, k], -1))
        return (linears["w2"](linears["gate"](h) * linears["w1"](h)),)

    x = torch.randn(TOKENS, WIDTH)
    return block_step(forward, parameters, x, torch.bfloat16 if autocast else None)


def _delta_step(manner: str, autocast: bool) -> Callable[[], None]:
    """Return forward and backward of the block's deltas alone, without the base's products."""
    torch.manual_seed(0)
    _, attachments, gate = _attached(manner)
    assert gate is not None
    x = torch.randn(TOKENS, WIDTH, requires_grad=True)
    inner = torch.randn(TOKENS, BLOCK["w2"][0], requires_grad=True)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)

    def run() -> None:
        gate.read(x)
        with cast:
            deltas = [
                one.adapter(inner if one.site.in_features == inner.shape[1] else x) for one in attachments
            ]
            total = torch.stack([delta.float().sum() for delta in deltas]).sum()
        total.backward()
        x.grad = inner.grad = None
        gate.zero_grad(set_to_none=True)

    return run


def main() -> None:
    """Measure the stacked products against the loop, one LoRA and no adapters."""
    pin()
    report = Report("11", "Flow on the seven linears of a block (SmolLM2's widths, 512 tokens), k 3, r 64")
    for autocast in (False, True):
        what, (goal, peer) = "bf16 autocast" if autocast else "fp32", GOALS[autocast]
        alone = compare({m: _delta_step(m, autocast) for m in ("stacked", "loop")}, rounds=9, repeats=4)
        report.add(
            f"{what}: deltas alone, stacked to loop", ratios(alone, "stacked", "loop"), goal=goal, peer=peer
        )
        steps = {manner: _step(manner, autocast) for manner in ("stacked", "loop", "lora", "floor")}
        times = compare(steps, rounds=9, repeats=4)
        report.add(f"{what}: with the base's products, stacked to loop", ratios(times, "stacked", "loop"))
        report.add(
            f"{what}: stacked, ratio to one LoRA of rank k r", ratios(times, "stacked", "lora"), goal=1.15
        )
        report.add(f"{what}: floor without adapters, ratio to stacked", ratios(times, "floor", "stacked"))
    report.finish()


if __name__ == "__main__":
    main()
