"""Row 8: HydraLoRA on gate, up and down against LoRA of the same total rank and a loop over heads."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.hosts import block_step
from benchmarks.measure import Report, compare, pin, ratios
from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey

WIDTH, INNER, TOKENS = 576, 1536, 512
SITES = {"gate": (WIDTH, INNER), "w1": (WIDTH, INNER), "w2": (INNER, WIDTH)}
SETTINGS = ((4, 8, "1.63", 1.03), (8, 4, "2.57", 1.03))
"""(N, rank, the loop's known figure, goal)."""


class Loop(nn.Module):
    """The published layer's manner: for each B its own product A x, weighed and added to the output."""

    def __init__(self, d_in: int, d_out: int, heads: int, rank: int) -> None:
        super().__init__()
        self.rank, self.scale, self.alpha = rank, 2.0, 2.0 * rank
        self.A = nn.Linear(d_in, rank, bias=False)
        self.B = nn.ModuleList([nn.Linear(rank, d_out, bias=False) for _ in range(heads)])
        self.router = nn.Linear(d_in, heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        weights = self.router(x).softmax(-1, dtype=torch.float32).to(x.dtype)
        return sum(weights[..., i : i + 1] * b(self.A(x)) * self.scale for i, b in enumerate(self.B))


def _adapter(site: Site, manner: str, heads: int, rank: int) -> tuple[nn.Module, Callable | None]:
    """Return an adapter and the fused forward it runs with."""
    if manner == "loop":
        return Loop(site.in_features, site.out_features, heads, rank), None
    method = "lora" if manner == "lora" else "hydra"
    kind = kinds.load(kinds.ADAPTERS, method)
    total = rank * heads if method == "lora" else rank
    config = AdapterConfig(total, 2.0 * total, 0.0, "default", disabled=False, method=method)
    options = kind.options(**({"heads": heads} if method == "hydra" else {}))
    adapter = kind.build([PlannedSite(site, config, options)], 0)[site.key]
    return adapter, None if manner == "plain" else kind.fused_forward


def _step(manner: str, heads: int, rank: int, autocast: bool) -> Callable[[], None]:
    """Return forward, backward and AdamW of a gated feed-forward part with adapters."""
    torch.manual_seed(0)
    linears, attachments = {}, {}
    for role, (d_in, d_out) in SITES.items():
        linears[role] = nn.Linear(d_in, d_out, bias=False).requires_grad_(False)
        if manner != "floor":
            site = Site(SiteKey(0, role), role, d_in, d_out)
            adapter, fused = _adapter(site, manner, heads, rank)
            attachments[site.key] = LinearAttachment(site, linears[role], adapter, fused)
    share_inputs(attachments, SHARED_INPUT)
    parameters = [p for one in attachments.values() for p in one.adapter.parameters()]

    def forward(x: Tensor) -> tuple[Tensor]:
        return (linears["w2"](linears["gate"](x) * linears["w1"](x)),)

    x = torch.randn(TOKENS, WIDTH)
    return block_step(forward, parameters, x, torch.bfloat16 if autocast else None)


def main() -> None:
    """Measure the node, plain autograd and the loop against LoRA of rank N r."""
    pin()
    report = Report("08", "gate, up, down alone (SmolLM2's widths, 512 tokens), ratio to LoRA of rank N r")
    for autocast in (False, True):
        for heads, rank, peer, goal in SETTINGS:
            manners = ("lora", "hydra", "plain", "loop", "floor")
            steps = {manner: _step(manner, heads, rank, autocast) for manner in manners}
            times = compare(steps, rounds=9, repeats=6)
            what = f"{'bf16 autocast' if autocast else 'fp32'}: N {heads} r {rank}"
            kept = {} if autocast else {"goal": goal, "peer": peer}
            report.add(f"{what}, one node", ratios(times, "hydra", "lora"), **kept)
            report.add(f"{what}, plain autograd", ratios(times, "plain", "lora"))
            report.add(f"{what}, loop over heads", ratios(times, "loop", "lora"))
            report.add(f"{what}, floor without adapters", ratios(times, "floor", "lora"))
    report.finish()


if __name__ == "__main__":
    main()
