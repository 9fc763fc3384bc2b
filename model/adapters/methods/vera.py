"""VeRA, also known as ELoRA: random matrices that never train, and two vectors that do.

    y = W0 x + b + s v_b * (B (v_d * (A drop(x))))       A (R, D_in), B (D_out, R), v_d (R), v_b (D_out)

Source: Kopiczko et al. 2023, arXiv 2310.11454, equation 2, which has s = 1; the computation is that of
`model.adapters.vector_scaled`.
Differs: where A and B are shared, one A serves all sites of its rank and input width, one B all of its rank
and output width; the paper has a single shape, PEFT cuts both from the largest. They start Kaiming uniform (a
= 0) as in PEFT and as AFLoRA (Liu et al. 2024, arXiv 2403.13269), which calls the method ELoRA, has them.

A and B are drawn again from the seed rather than stored; a checksum tells whether they are the same
(`model.adapters.drawn_matrices`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from configs.schema.number_values import Real
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.drawn_matrices import DrawnMatrices
from model.adapters.fused_vectors import fused_vectors_forward
from model.adapters.vector_scaled import VectorScaled, build_vector_scaled
from model.site import SiteKey
from model.tensors.random_state import generator


@dataclass(frozen=True)
class VeraOptions:
    """Keys of a table with `method = "vera"`."""

    scaling: Literal["none", "alpha_over_r"] = "none"
    """What multiplies the delta: nothing, or lora_alpha / r."""
    shared: bool = True
    """One A and one B for all sites of a shape, or a pair for each site."""
    d_initial: Annotated[float, Real(0, low_open=True)] = 0.1
    """Where every number of v_d starts."""


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, VectorScaled]:
    parameters: dict[str, nn.Parameter] = {}
    matrices = DrawnMatrices()
    return {p.site.key: _one(p, seed, parameters, matrices) for p in planned}


def _one(
    planned: PlannedSite, seed: int, parameters: dict[str, nn.Parameter], matrices: DrawnMatrices
) -> VectorScaled:
    """Return a site's adapter; A and B are taken from `parameters` where their purpose is there already."""
    site, config, options = planned.site, planned.config, planned.options
    adapter = build_vector_scaled(planned)
    source = generator(seed, "vera", str(site.key))
    adapter.reset_vectors(source, initial_d=options.d_initial, random_b=not config.init)
    purposes = {
        "A": f"vera A {config.rank} {site.in_features if options.shared else site.key}",
        "B": f"vera B {config.rank} {site.out_features if options.shared else site.key}",
    }
    for matrix in (adapter.A, adapter.B):
        matrix.requires_grad_(False)
    adapter.A = parameters.setdefault(purposes["A"], adapter.A)
    adapter.B = parameters.setdefault(purposes["B"], adapter.B)
    adapter.draw(seed, purposes, matrices)
    return adapter


ADAPTER: AdapterKind[VectorScaled] = AdapterKind(
    build=_build,
    options=VeraOptions,
    fused_forward=fused_vectors_forward,
    export=lambda adapter: adapter.export(),
    keys=lambda adapter: vars(adapter.options),
    converts=True,
    fixed_keys=("scaling", "shared"),
)
