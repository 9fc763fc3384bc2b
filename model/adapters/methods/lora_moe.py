"""LoRAMoE: several LoRAs, each with an A of its own, and a router that weighs them for every token.

Source: Dou et al. 2023, arXiv 2312.09979, as HydraLoRA (Tian et al. 2024, arXiv 2404.19245) compares
with it: y = W0 x + sum_i s_i(x) (alpha / R) B_i A_i x, s = softmax of a router without bias.
Differs: Dou et al. add a loss that balances two groups of experts; the comparison, and this file, do without.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import nn

from configs.schema.number_values import Whole
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.experts import UNMERGEABLE, averaged, experts
from model.adapters.fused_experts import fused_experts_forward
from model.site import SiteKey


@dataclass(frozen=True)
class MoeOptions:
    """Keys of a table with `method = "lora_moe"`."""

    heads: Annotated[int, Whole(1, 1024)] = 2
    """N, the number of experts; `r` is the rank of each."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, nn.Module]:
    return {p.site.key: experts(p, seed, shares=False, routes=True) for p in planned}


ADAPTER = AdapterKind(
    build=_build,
    options=MoeOptions,
    fused_forward=fused_experts_forward,
    keys=lambda adapter: {"heads": adapter.heads},
    unmergeable=UNMERGEABLE,
    average=averaged,
)
