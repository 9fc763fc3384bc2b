"""VeRA, also known as ELoRA: random matrices that never train, and two vectors that do.

Source: Kopiczko et al. 2023, arXiv 2310.11454, equation 2: y = W0 x + v_b * (B (v_d * (A x))).
Differs: where A and B are shared, an A serves all sites of its rank and input width, a B all of its rank and
output width; the paper has one shape alone, PEFT cuts both from the largest. The start is that of AFLoRA
(Liu et al. 2024, arXiv 2403.13269), which calls the method ELoRA: Kaiming uniform with a = 0, as PEFT's.

A and B are drawn again from the seed rather than stored; a checksum tells whether they are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from configs.schema.number_values import Real
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.drawn_matrices import DrawnMatrices
from model.adapters.fused_vectors import fused_vectors_forward
from model.adapters.vector_scaled import MATRICES, Vectors, vectors
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


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, nn.Module]:
    parameters: dict[str, nn.Parameter] = {}
    matrices = DrawnMatrices()
    return {p.site.key: _one(p, seed, parameters, matrices) for p in planned}


def _one(
    planned: PlannedSite, seed: int, parameters: dict[str, nn.Parameter], matrices: DrawnMatrices
) -> Vectors:
    site, config, options = planned.site, planned.config, planned.options
    adapter = vectors(planned)
    source = generator(seed, "vera", str(site.key))
    adapter.start(source, inner=options.d_initial, draws_b=not config.init)
    purposes = {
        name: f"vera {name} {config.rank} {width if options.shared else site.key}"
        for name, width in zip(MATRICES, (site.in_features, site.out_features))
    }
    for name in MATRICES:
        own = getattr(adapter, name).requires_grad_(False)
        setattr(adapter, name, parameters.setdefault(purposes[name], own))
    adapter.draw(seed, purposes, matrices)
    return adapter


ADAPTER = AdapterKind(
    build=_build,
    options=VeraOptions,
    fused_forward=fused_vectors_forward,
    export=lambda adapter: adapter.export(),
    keys=lambda adapter: vars(adapter.options),
    converts=True,
    fixed_keys=("scaling", "shared"),
)
