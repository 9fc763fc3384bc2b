"""LoRAMoE: several LoRAs, each with an A of its own, and a router that weighs them for every token.

    y = W0 x + b + (alpha / R) sum_i s_i(x) B_i A_i drop(x)      A_i (R, D_in), B_i (D_out, R)
    s(x) = softmax(W_r x)                                        W_r (N, D_in) without bias

Source: Dou et al. 2023, arXiv 2312.09979, as HydraLoRA (Tian et al. 2024, arXiv 2404.19245) compares with it.
Differs: Dou et al. add a loss that balances two groups of experts; the comparison, and this file, do without.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from configs.schema.number_values import Whole
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.experts import UNMERGEABLE, Experts, average_lora, build_experts
from model.adapters.fused_experts import fused_experts_forward
from model.site import SiteKey


@dataclass(frozen=True)
class MoeOptions:
    """Keys of a table with `method = "lora_moe"`."""

    heads: Annotated[int, Whole(1, 1024)] = 2
    """N, the number of experts; `r` is the rank of each."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, Experts]:
    return {p.site.key: build_experts(p, seed, shared_a=False, routed=True) for p in planned}


ADAPTER: AdapterKind[Experts] = AdapterKind(
    build=_build,
    options=MoeOptions,
    fused_forward=fused_experts_forward,
    keys=lambda adapter: {"heads": adapter.heads},
    unmergeable=UNMERGEABLE,
    average=average_lora,
)
