"""AFLoRA: two matrices that freeze while training goes on, and two vectors that train to its end.

    y = W0 x + b + s v_b * (B (v_d * (A drop(x))))       A (R, D_in), B (D_out, R), v_d (R), v_b (D_out)

Source: Liu et al. 2024, arXiv 2403.13269, equation 1, which has s = 1. When a matrix freezes is decided by
`model.freezing`; the computation is that of `model.adapters.vector_scaled`.
Differs: the published GLUE code stores alpha / sqrt(R) and never multiplies by it, its GSM8K code multiplies
by alpha / R; here the key `scaling` chooses. As in the published code, A and B start Kaiming uniform (a = 0),
v_d at 0.1, v_b at zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.fused_vectors import fused_vectors_forward
from model.adapters.vector_scaled import MATRICES, VectorScaled, build_vector_scaled
from model.site import SiteKey
from model.tensors.random_state import generator

_INITIAL_D = 0.1


@dataclass(frozen=True)
class AfloraOptions:
    """Keys of a table with `method = "aflora"`."""

    scaling: Literal["none", "alpha_over_r"] = "none"
    """What multiplies the delta: nothing, or lora_alpha / r."""
    uv_rule: Literal["rectangular", "all", "none"] = "rectangular"
    """Where A and B begin trainable: where D_in is not D_out, everywhere, nowhere."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, VectorScaled]:
    return {p.site.key: _one(p, seed) for p in planned}


def _one(planned: PlannedSite, seed: int) -> VectorScaled:
    site, config, options = planned.site, planned.config, planned.options
    adapter = build_vector_scaled(planned)
    source = generator(seed, "aflora", str(site.key))
    adapter.reset(source, initial_d=_INITIAL_D, random_b=not config.init)
    is_square = site.in_features == site.out_features
    if options.uv_rule == "none" or (options.uv_rule == "rectangular" and is_square):
        for matrix in (adapter.A, adapter.B):
            matrix.requires_grad_(False)
    return adapter


ADAPTER: AdapterKind[VectorScaled] = AdapterKind(
    build=_build,
    options=AfloraOptions,
    fused_forward=fused_vectors_forward,
    export=lambda adapter: adapter.export(),
    load=lambda adapter, a, b, scale: adapter.load(a, b, scale),
    keys=lambda adapter: vars(adapter.options),
    converts=True,
    fixed_keys=("scaling",),
    freezable=MATRICES,
)
