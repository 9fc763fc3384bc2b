"""LoRA-Flow: k finished LoRA sets at one linear, weighed token by token by the gate of its layer.

    y = W0 u + b0 + sum_i w_i(x) s_i B_i A_i u           A_i (R_i, D_in), B_i (D_out, R_i)

s_i = alpha_i / R_i is a set's own scale, u is the linear's input and x that of its layer; w is that of
`model.adapters.gate`. Only the gates train.

Source: Wang et al. 2024, arXiv 2402.11455, equations 3 to 5.
Differs: all A_i are rows of one matrix and all B_i, transposed, rows of another, so that nothing loops over
sets. z = A u is one product for all linears that read u; each rank of z is multiplied by s_i w_i, which is
the product of w with a matrix of scales; the weighted z meets all B_i in one product. The sets' dropout is
not applied.

A set without an adapter at a linear has no rows there. The matrices are those of the sets' files; a Flow
adapter's own file has the gates alone, each with the first adapted linear of its layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.number_values import Real, Whole
from model.adapters.adapter import AdaptedLinear, Adapter, AdapterKind, LoraForm, PlannedSite
from model.adapters.block_diagonal import is_half_precision
from model.adapters.fused import fused
from model.adapters.gate import Gate
from model.plan.flow_table import Combine, Start
from model.site import SiteKey


@dataclass(frozen=True)
class FlowOptions:
    """Keys with which a Flow adapter's record builds it again; they come from the table `[flow]`."""

    width: Annotated[int, Whole(1)] = 1
    """D, of the layer's input."""
    sets: Annotated[int, Whole(1, 64)] = 1
    """k, the number of sets."""
    combine: Combine = "gate"
    """What weighs the sets, as in `model.adapters.gate`."""
    temperature: Annotated[float, Real(1e-6, 1e6)] = 1.0
    """T."""
    initial: Start = "last"
    """Where gates start."""
    weights: str = ""
    """Those of `constant`, separated by commas."""


class Flow(Adapter):
    """The sets' matrices at one linear; without sets its delta is zero.

    Args:
        in_features: D_in.
        out_features: D_out.
        gate: that of the layer.
        owns: whether this is the linear that the gate's numbers are saved with.
    """

    router_parameters = ("gate",)
    A: Tensor
    B: Tensor
    scales: Tensor
    gate: Gate

    def __init__(self, in_features: int, out_features: int, gate: Gate, *, owns: bool) -> None:
        super().__init__(rank=1, alpha=1.0, dropout=0.0)
        if owns:
            self.gate = gate
        else:
            self.__dict__["gate"] = gate  # past nn.Module: a plain reference to another linear's
        self.register_buffer("A", torch.zeros(0, in_features), persistent=False)
        self.register_buffer("B", torch.zeros(0, out_features), persistent=False)
        self.register_buffer("scales", torch.zeros(gate.sets, 0), persistent=False)

    def take(self, sets: Sequence[LoraForm | None]) -> None:
        """Take the matrices of every set, in order; None where a set has no adapter here."""
        forms = [(number, form) for number, form in enumerate(sets) if form is not None]
        scales = [torch.zeros(len(sets), form[0].shape[0]) for _, form in forms]
        for block, (number, form) in zip(scales, forms):
            block[number] = form[2]
        self.A = torch.cat([self.A[:0], *(form[0].to(self.A) for _, form in forms)])
        self.B = torch.cat([self.B[:0], *(form[1].t().to(self.B) for _, form in forms)])
        self.scales = torch.cat([self.scales[:, :0], *(block.to(self.scales) for block in scales)], 1)

    def weighted(self, z: Tensor, strength: float = 1.0) -> Tensor:
        """Multiply the ranks of each set by its scale and weight. z: (..., sum of R_i)."""
        weights = self.gate.weights()
        factors = weights @ (self.scales * strength).to(weights.dtype)
        if factors.ndim > 1 and factors.shape[:-1] != z.shape[:-1]:  # a host that flattens batch and time
            factors = factors.reshape(-1, factors.shape[-1])
        return z * factors.to(z.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the delta. x: (..., D_in) -> (..., D_out)."""
        return self.weighted(F.linear(x, self.A.to(x.dtype))) @ self.B.to(x.dtype)

    def factors(self) -> dict[str, Tensor]:
        """Return what trains: G (k, D) and b (k), at the linear that owns the gate."""
        return dict(self.named_parameters())

    def zero_initialised(self) -> tuple[str, ...]:
        """Return nothing: the delta is that of the last set from the start."""
        return ()

    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in) where tokens do not matter, else None."""
        if not self.gate.is_fixed:
            return None
        return (self.B * (self.gate.weights().detach() @ self.scales).unsqueeze(1)).t() @ self.A


@fused
def fused_flow_forward(x: Tensor, linears: Sequence[AdaptedLinear[Flow]]) -> Sequence[Tensor]:
    """Return base plus delta of linears with one input, whose A's are one product.

    Args:
        x: (..., D_in).
        linears: all read x.

    Returns:
        One (B T, D_out) for each linear.
    """
    flat = x.reshape(-1, x.shape[-1])
    downs = [linear.adapter.A for linear in linears]
    down = downs[0] if len(downs) == 1 else torch.cat(downs)
    z = F.linear(flat, down.to(flat.dtype)).split([len(one) for one in downs], 1)
    outputs = []
    for part, linear in zip(z, linears):
        weighted, up = linear.adapter.weighted(part, linear.strength), linear.adapter.B
        outputs.append(_sum(flat, linear, weighted, up))
    return outputs


def _sum(x: Tensor, linear: AdaptedLinear[Flow], z: Tensor, up: Tensor) -> Tensor:
    """Return x W^T + b + z B, of which x and z have gradients. x: (B T, D_in) -> (B T, D_out)."""
    weight, up = linear.weight.to(x.dtype), up.to(x.dtype)
    bias = None if linear.bias is None else linear.bias.to(x.dtype)
    if not is_half_precision(x):
        return torch.addmm(F.linear(x, weight, bias), z, up)
    # The delta comes first, as in `block_diagonal.linear_plus_delta`, so that a small one is not lost.
    delta = z @ up if bias is None else torch.addmm(bias, z, up)
    return torch.addmm(delta, x, weight.t())


def _build(planned: Sequence[PlannedSite], seed: int) -> dict[SiteKey, Flow]:
    """Build every linear's adapter around one gate a layer, owned by the layer's first linear."""
    gates: dict[int, Gate] = {}
    built: dict[SiteKey, Flow] = {}
    for p in sorted(planned, key=lambda one: one.site.key):
        layer, options = p.site.key.layer, p.options
        owns = layer not in gates
        if owns:
            gates[layer] = Gate(
                options.width,
                options.sets,
                combine=options.combine,
                temperature=options.temperature,
                start=options.initial,
                weights=tuple(map(float, options.weights.split(","))) if options.weights else (),
            )
        gates[layer].linears += 1
        built[p.site.key] = Flow(p.site.in_features, p.site.out_features, gates[layer], owns=owns)
    return built


def _keys(adapter: Flow) -> dict[str, str | int | float]:
    gate = adapter.gate
    width = gate.G.shape[1] if gate.G is not None else 1
    return {
        "width": width,
        "sets": gate.sets,
        "combine": gate.combine,
        "temperature": gate.temperature,
        "weights": ",".join(map(repr, gate.given)),
    }


def _optional(adapter: Flow, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tensors that a record may lack: all of one that says where gates start."""
    return tuple(adapter.state_dict()) if "initial" in keys else ()


ADAPTER: AdapterKind[Flow] = AdapterKind(
    build=_build,
    options=FlowOptions,
    fused_forward=fused_flow_forward,
    keys=_keys,
    optional_tensors=_optional,
    unmergeable=(
        "weighs its sets by token, so no single matrix can be added to the weight;"
        ' combine = "uniform" or "constant" can be merged'
    ),
    layer_reader=lambda adapter: adapter.gate,
    takes_sets=lambda adapter, sets: adapter.take(sets),
)
