"""The contract of an adapter: a trainable delta beside a frozen linear layer, or in the residual stream."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from model.adapters.rematerialisation import Epsilons
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

_MIXING = {"router", "gate", "gates"}


class Adapter(Protocol):
    """What every adapter offers, as an `nn.Module`."""

    rank: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the delta alone. x: (..., D_in) -> (..., D_out)."""
        ...

    def factors(self) -> Mapping[str, Tensor]:
        """Return its tensors by name in the layout papers use; they share memory with the parameters."""
        ...

    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in) to add to the host's weight, or None without one."""
        ...


def is_mixing(name: str) -> bool:
    """Tell by a tensor's dotted name whether it weighs adapters, or parts of one: a router or a gate."""
    return not _MIXING.isdisjoint(name.split("."))


class AdaptedLinear(NamedTuple):
    """One adapted linear of a fused computation.

    Args:
        weight: (D_out, D_in), frozen; a plain tensor or a stored one, whose `to` and products do as if.
        bias: (D_out) or None, frozen.
        adapter: the adapter at the site.
        strength: importance coefficient that multiplies the delta.
        epsilons: what `model.adapters.rematerialisation` needs of the network; None keeps norm outputs.
    """

    weight: Tensor
    bias: Tensor | None
    adapter: Any
    strength: float
    epsilons: Epsilons | None = None


FusedForward = Callable[[Tensor, Sequence[AdaptedLinear]], list[Tensor]]
"""(x: (..., D_in), linears that read x) -> base output plus delta of each, (..., D_out)."""


@dataclass(frozen=True)
class PlannedSite:
    """A site of the network, what the configuration plans for it and the kind's own options."""

    site: Site
    config: AdapterConfig
    options: Any


@dataclass(frozen=True)
class NoOptions:
    """A kind of adapter without keys beyond those of `model.plan.lora_toml.AdapterConfig`."""


@dataclass(frozen=True)
class AdapterKind:
    """What a file in `model/adapters/` exports as `ADAPTER`.

    Args:
        build: (all planned sites, run seed) -> one adapter for each site; it sees all sites at once so that
            tensors may be shared between them.
        options: the dataclass that a table's further TOML keys are bound to.
        fused_forward: computes base and delta of several linears with one input in as few operations as the
            kind knows; None to add the delta to the stock output.
        export: adapter -> (A (R, D_in), B (D_out, R), alpha / rank) for PEFT; None without such a form.
        load: (adapter, A, B, scale of that file) -> None; takes a PEFT adapter's factors. A ValueError says
            why the adapter cannot hold them.
        keys: adapter -> the TOML keys of its own that make it again, for kinds without PEFT's form.
        fresh: (adapter, keys as a file of this kind tells them) -> names of tensors that the file may lack;
            they keep their start.
        place: beside a linear layer, or in the residual stream, where no linear stands.
        unmergeable: why `merged_delta` gives no matrix, for kinds where it gives none.
        average: (adapter, mean weight of each part, or None without a router) -> what `export` gives, of
            the LoRA that weighs parts alike for all tokens; None where none can stand for the kind.
        by_head: `build` takes configurations with `heads`, whose heads have adapters of their own.
        converts: `export` gives a LoRA of the same effect, from which the adapter cannot be made again; its
            own tensors travel beside it.
        rigid: keys of its own in which a configuration must agree with an adapter loaded into it.
        freezes: parameters that may stop training one by one; the adapter's set `frozen` names those that
            did.
    """

    build: Callable[[Sequence[PlannedSite], int], dict[SiteKey, nn.Module]]
    options: type = NoOptions
    fused_forward: FusedForward | None = None
    export: Callable[[Any], tuple[Tensor, Tensor, float]] | None = None
    load: Callable[[Any, Tensor, Tensor, float], None] | None = None
    keys: Callable[[Any], Mapping[str, Any]] = lambda adapter: {}
    fresh: Callable[[Any, Mapping[str, Any]], Collection[str]] = lambda adapter, keys: ()
    place: Literal["linear", "stream"] = "linear"
    unmergeable: str = "weighs its parts anew for every token, so no one matrix can be added to the weight"
    average: Callable[[Any, Tensor | None], tuple[Tensor, Tensor, float]] | None = None
    by_head: bool = False
    converts: bool = False
    rigid: tuple[str, ...] = ()
    freezes: tuple[str, ...] = ()
