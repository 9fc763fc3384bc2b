"""The contract of an adapter: a trainable delta at a frozen linear layer, or in the residual stream.

A method is a file in `model/adapters/methods`: a subclass of `Adapter`, which computes the delta, and an
`AdapterKind`, which defines how the framework builds, fuses, exports and loads it. These two declare all that
the framework needs to know about a method's tensors; nothing is inferred from a tensor's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from torch import Tensor, nn

from model.adapters.rematerialisation import NormEpsilons
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey


class Adapter(nn.Module, ABC):
    """The delta of one site: h = W0 x + b + strength * delta(x), of which this module computes delta(x).

    Args:
        rank: R, the number of rows of A; recorded in files.
        alpha: LoRA's alpha as the configuration gives it, or one for each head.
        dropout: probability that an input feature is set to zero before A while training.

    Attributes:
        router_parameters: attributes (a parameter, or a module of parameters) whose numbers weigh adapters or
            parts of one, token by token. They count as routers, all other parameters as the adapter's.
        frozen: names of the parameters that trained and do no more. They get no gradient, yet keep
            `requires_grad`: processes that exchange gradients have agreed to wait for all of them.
    """

    router_parameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, rank: int, alpha: float | list[float], dropout: float) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.frozen: set[str] = set()

    @property
    def draws_dropout(self) -> bool:
        """Whether a forward pass draws dropout noise now."""
        return self.training and self.dropout > 0

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the delta alone, in x's dtype. x: (..., D_in) -> (..., D_out)."""

    @abstractmethod
    def factors(self) -> Mapping[str, Tensor]:
        """Return the tensors by name in the layout of the papers, as views of the parameters.

        Names and order are those of files: A is (R, D_in), B is (D_out, R).
        """

    @abstractmethod
    def zero_initialised(self) -> Collection[str]:
        """Return the names of the factors that start at zero and thereby make the delta zero.

        SNIP, SynFlow and other products of weights and gradients vanish while they are zero, so scoring may
        put random numbers in their place.
        """

    @abstractmethod
    def merged_delta(self) -> Tensor | None:
        """Return the delta as a matrix (D_out, D_in), or None where it depends on the input."""


def is_router(adapter: Adapter, parameter: str) -> bool:
    """Return whether a parameter, by its dotted name in the adapter, belongs to a declared router."""
    return parameter.partition(".")[0] in adapter.router_parameters


A = TypeVar("A", bound=Adapter)
A_co = TypeVar("A_co", covariant=True)


class AdaptedLinear(NamedTuple, Generic[A_co]):
    """One linear layer of a fused computation, y = x W^T + b + strength * delta(x).

    Args:
        weight: W (D_out, D_in), frozen; a plain tensor, or a quantized one whose `to` and products act like
            those of a plain one.
        bias: b (D_out) or None, frozen.
        adapter: computes the delta.
        strength: importance coefficient that multiplies the delta.
        epsilons: the layer norms of the network, for `model.adapters.rematerialisation`; None keeps their
            outputs for the backward pass.
    """

    weight: Tensor
    bias: Tensor | None
    adapter: A_co
    strength: float
    epsilons: NormEpsilons | None = None


FusedForward = Callable[[Tensor, Sequence[AdaptedLinear[A_co]]], list[Tensor]]
"""(x (..., D_in), the linears that read x) -> base output plus delta of each, (..., D_out)."""

LoraForm = tuple[Tensor, Tensor, float]
"""A (R, D_in), B (D_out, R) and the scale of a plain LoRA: delta(x) = scale B A x."""


@dataclass(frozen=True)
class PlannedSite:
    """A site that gets an adapter.

    Args:
        site: where it is and how wide.
        config: what the configuration plans there.
        options: the kind's own TOML keys, an instance of `AdapterKind.options`.
    """

    site: Site
    config: AdapterConfig
    options: Any  # each kind has a dataclass of its own


@dataclass(frozen=True)
class NoOptions:
    """The options of a kind without keys beyond those of `model.plan.adapter_config.AdapterConfig`."""


@dataclass(frozen=True)
class AdapterKind(Generic[A]):
    """What a file in `model/adapters/methods` exports as `ADAPTER`.

    Args:
        build: (all planned sites, run seed) -> one adapter for each site. It sees all sites at once, so that
            tensors may be shared between them.
        options: the dataclass that a table's further TOML keys are bound to.
        fused_forward: computes base and delta of several linears with one input in as few operations as the
            kind can; None adds the delta to the stock output.
        export: returns the LoRA of the same effect, for PEFT; None where there is none.
        load: (adapter, A (R, D_in), B (D_out, R), scale) takes the factors of a PEFT adapter; raises
            ValueError with the reason where the adapter cannot hold them. None where no LoRA can be taken.
        keys: the TOML keys of the kind that rebuild the adapter, for the record of its file.
        optional_tensors: (adapter, keys recorded in a file of this kind) -> names of tensors that the file
            may lack; they keep their start.
        place: at a linear layer, or in the residual stream, where there is no linear.
        unmergeable: why `merged_delta` is None, for kinds where it is.
        average: (adapter, mean weight of each part (N), or None without a router) -> the LoRA whose parts
            weigh the same for all tokens; None where no LoRA is an average of the kind.
        by_head: `build` takes configurations with `heads`, whose heads have adapters of their own.
        converts: the adapter cannot be rebuilt from what `export` returns, so its own tensors are saved too.
        fixed_keys: those of `keys` that must be the same in a configuration and in an adapter loaded into it.
        freezable: parameters that may stop training one by one; `Adapter.frozen` names those that have.
        layer_reader: what of the adapter reads the input of its layer, in `model.injection.layer_input`; None
            where nothing does.
        takes_sets: (adapter, for each trained LoRA set its form here, or None) fuses sets that have files of
            their own; None for kinds whose tensors are all in one adapter's files.
    """

    build: Callable[[Sequence[PlannedSite], int], Mapping[SiteKey, A]]
    options: type[Any] = NoOptions
    fused_forward: FusedForward[A] | None = None
    export: Callable[[A], LoraForm] | None = None
    load: Callable[[A, Tensor, Tensor, float], None] | None = None
    keys: Callable[[A], Mapping[str, Any]] = lambda adapter: {}
    optional_tensors: Callable[[A, Mapping[str, Any]], Collection[str]] = lambda adapter, keys: ()
    place: Literal["linear", "stream"] = "linear"
    unmergeable: str = "weights its parts by token, so no single matrix can be added to the weight"
    average: Callable[[A, Tensor | None], LoraForm] | None = None
    by_head: bool = False
    converts: bool = False
    fixed_keys: tuple[str, ...] = ()
    freezable: tuple[str, ...] = ()
    layer_reader: Callable[[A], Any] | None = None
    takes_sets: Callable[[A, Sequence[LoraForm | None]], None] | None = None
