"""HydraLoRA: one A for all, several B's, and a router that weighs them for every token.

    y = W0 x + b + (alpha / R) sum_i w_i B_i A drop(x)   A (R, D_in), B_i (D_out, R)
    w = softmax(W_r x)                                   W_r (N, D_in) without bias

Source: Tian et al. 2024, arXiv 2404.19245, section 3.
Differs: the published layer loops over the B_i and draws dropout and computes A x again for each; here both
happen once (`model.adapters.experts`). The published code takes logits in the precision of the run and only
their softmax in float32; here the router's product is in float32 as well.

`router = "uniform"` is the paper's ablation without a router: every B_i has the weight 1 / N.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from configs.schema.number_values import Whole
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.experts import UNMERGEABLE, Experts, average_lora, build_experts
from model.adapters.fused_experts import fused_experts_forward
from model.site import SiteKey


@dataclass(frozen=True)
class HydraOptions:
    """Keys of a table with `method = "hydra"`."""

    heads: Annotated[int, Whole(1, 1024)] = 2
    """N, the number of B's."""
    router: Literal["token", "uniform"] = "token"
    """Weights for every token, or 1 / N each."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, Experts]:
    return {
        p.site.key: build_experts(p, seed, shared_a=True, routed=p.options.router == "token") for p in planned
    }


ADAPTER: AdapterKind[Experts] = AdapterKind(
    build=_build,
    options=HydraOptions,
    fused_forward=fused_experts_forward,
    keys=lambda adapter: {
        "heads": adapter.heads,
        "router": "uniform" if adapter.router is None else "token",
    },
    unmergeable=UNMERGEABLE,
    average=average_lora,
)
