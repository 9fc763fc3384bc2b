"""Edit the residual stream of stock layers: low-rank residuals, cross-layer shortcuts, their norms.

Source: HeteroLoRA (Zhang et al. 2024, arXiv 2406.14956). With x a layer's input, u its sum after attention, v
its sum after the feed-forward part, u' the u of the layer before, and low(h) = (shortcut_alpha / R) B A h:

    pre-norm:   u = x + attn(norm1(x)) + res1(x) + cut2(u')     v = u + mlp(norm2(u)) + res2(u) + cut1(x)
    post-norm:  u = norm1(x + attn(x) + res1(x) + cut2(u'))     v = norm2(u + mlp(u) + res2(u) + cut1(x))

where res1, res2, cut1, cut2 are the low of residual1, residual2, shortcut1, shortcut2; all are (B, T, D).
Differs: this is the norm mode `exact`, in which a term joins the sum before the norm that follows it anyway.
The published wiring, `renorm`, applies one more norm to the sum, u = N2(... + cut2(u')), v = N1(... +
cut1(x)), which changes the network also where the shortcuts are zero.
"""

import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.runtime.faults import InputFault
from model.injection.stream_sums import StreamSums
from model.network.family import Family
from model.site import Site, SiteKey

NormMode = Literal["exact", "renorm"]
_CROSS = ("shortcut1", "shortcut2")
_UNFIT = {
    "layerdrop": "layers that are skipped at random have no sum to pass on",
    "chunk_size_feed_forward": "a feed-forward part that runs in chunks has no one sum to add to",
}


@dataclass(frozen=True)
class Wiring:
    """How shortcuts join the stream.

    Args:
        norm: whether one more norm follows a cross-layer shortcut's term.
        renormed: the sites, as text, whose sum gets one more norm in the published wiring.
    """

    norm: NormMode
    renormed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse norms that the mode does not have."""
        if self.norm == "exact" and self.renormed:
            raise ValueError("renormed: 'exact' has no such norms")


class StreamTerm(Protocol):
    """What a layer needs of an attachment."""

    site: Site

    def term(self, h: Tensor) -> Tensor:
        """Return the term that is added at its place. h: (..., D) -> (..., D)."""
        ...


class Stream:
    """The layers of one network as shortcuts see them.

    It holds no tensor of its own. Modules of a layer that is edited get a bound method as their `forward`;
    the others, and all of them while nothing is on, run their stock code.

    Args:
        network: the host; its classes, places and state-dict keys do not change.
        family: its family.
        layers: their number.
        norm: how terms join the sums; `wire` determines after which sites `renorm` applies its norms.

    Raises:
        InputFault: when the network's configuration runs its layers in a way that has no such sums.
    """

    def __init__(
        self, network: PreTrainedModel, family: Family, layers: int, norm: NormMode = "exact"
    ) -> None:
        config: Any = network.config  # its attributes depend on the architecture
        for name, reason in _UNFIT.items():
            if getattr(config, name, 0):
                raise InputFault(f"config.json: {name}: must be 0 for shortcuts: {reason}")
        self.width: int = config.hidden_size
        self.norm = norm
        self.renormed: frozenset[SiteKey] = frozenset()
        self.sums = StreamSums()
        self.layers = [LayerStream(self, network, family, number) for number in range(layers)]

    def site(self, key: SiteKey) -> Site:
        """Return a place of the stream as a site; its host module is the layer."""
        return Site(key, self.layers[key.layer].path, self.width, self.width)

    @property
    def wiring(self) -> Wiring:
        """How the shortcuts are wired, for the record."""
        return Wiring(self.norm, tuple(map(str, sorted(self.renormed))))

    def wire(self, sites: Collection[SiteKey]) -> None:
        """Set the sites where shortcuts are planned, on or off: `renorm` applies its norms there."""
        self.renormed = frozenset(key for key in sites if self.norm == "renorm" and key.role in _CROSS)
        for layer in self.layers:
            layer.install()

    def refresh(self, number: int) -> None:
        """Edit a layer, and the one before it, which passes its sum on, as the attachments now are."""
        for layer in self.layers[max(number - 1, 0) : number + 1]:
            layer.install()


# Not compiled, while the stock code that they call is: compiled code cannot pass sums between layers.
_uncompiled = torch.compiler.disable(recursive=False)


class LayerStream:
    """The edits of one layer.

    Gradient checkpointing recomputes a layer's `forward`: the methods inside it (attention's entry, both
    norms) run again, the one around it does not. So those inside take all they need from their own inputs,
    and keep a sum for the one around only while it runs.

    Args:
        stream: all layers.
        network: the host.
        family: its family.
        number: of the layer.
    """

    _x: "weakref.ref[Tensor] | None"
    _u: Tensor | None
    _is_open: bool

    def __init__(self, stream: Stream, network: PreTrainedModel, family: Family, number: int) -> None:
        self.stream, self.number = stream, number
        self.path = family.layer.format(layer=number)
        self.layer = network.get_submodule(self.path)
        attention_norm, ffn_norm = family.norms(network.config)
        after2, after1 = family.renorms or (attention_norm, ffn_norm)
        self.is_pre = family.placement(network.config) == "pre"
        self.attention_norm = self.layer.get_submodule(attention_norm)
        self.ffn_norm = self.layer.get_submodule(ffn_norm)
        self.entry = self.attention_norm if self.is_pre else self.layer.get_submodule(family.attention)
        self.norms = {
            "shortcut2": self.layer.get_submodule(after2),
            "shortcut1": self.layer.get_submodule(after1),
        }
        self.on: dict[str, StreamTerm] = {}
        self.__setstate__({})

    def switch(self, attachment: StreamTerm, on: bool) -> None:
        """Add an attachment of this layer to those that take part, or remove it."""
        role = attachment.site.key.role
        if on and self.on.get(role) is not attachment:
            self.on[role] = attachment
        elif not on and self.on.get(role) is attachment:
            del self.on[role]
        else:
            return
        self.stream.refresh(self.number)

    def install(self) -> None:
        """Edit the layer if any term that concerns it is on; otherwise restore its stock code."""
        edits = {self.layer: self._around_layer, self.entry: self._at_entry}
        if self.is_pre:
            edits[self.ffn_norm] = self._at_attention_sum
        else:
            edits |= {self.attention_norm: self._around_attention_norm, self.ffn_norm: self._around_ffn_norm}
        is_edited = self.on or self._passes or any(self._renorms(role) for role in self.norms)
        for module, forward in edits.items():
            if is_edited:
                module.__dict__["forward"] = forward
            else:
                module.__dict__.pop("forward", None)

    @property
    def _passes(self) -> bool:
        """Whether the next layer takes this one's sum after attention."""
        after = self.stream.layers[self.number + 1 : self.number + 2]
        return bool(after) and "shortcut2" in after[0].on

    def _renorms(self, role: str) -> bool:
        return SiteKey(self.number, role) in self.stream.renormed

    @_uncompiled
    def _around_layer(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; where norms come first, its output is the sum that ends it. x: (B, T, D)."""
        x = _first(args, kwargs)
        self.stream.sums.bind(self.number, x)
        self._is_open = True
        try:
            v = _stock(self.layer, *args, **kwargs)
            u = self._attention_sum()
        finally:
            self._is_open, self._u = False, None
        if self._passes:
            self.stream.sums.put(self.number, u)
        if self.is_pre:
            v = self._plus(v, "residual2", lambda: u)
            v = self._plus(v, "shortcut1", lambda: x)
            v = self._normed(v, "shortcut1")
        return v

    @_uncompiled
    def _at_entry(self, *args: Any, **kwargs: Any) -> Any:
        """Remember the layer's input where attention begins; the layer's caller keeps it alive."""
        self._x = weakref.ref(_first(args, kwargs))
        return _stock(self.entry, *args, **kwargs)

    @_uncompiled
    def _at_attention_sum(self, u: Tensor) -> Tensor:
        """Edit the sum after attention on its way into the next norm. u: (B, T, D) or (B T, D).

        In place: the layer keeps this very tensor for its skip path.
        """
        for role, source in (("residual1", self._input), ("shortcut2", self._before)):
            if role in self.on:
                u.add_(self.on[role].term(source()).reshape(u.shape))
        if self._renorms("shortcut2"):
            u.copy_(self._normed(u.clone(), "shortcut2"))
        if self._is_open:
            self._u = u
        return _stock(self.ffn_norm, u)

    @_uncompiled
    def _around_attention_norm(self, total: Tensor) -> Tensor:
        """Edit the sum after attention before its norm. total: (B, T, D)."""
        total = self._plus(total, "residual1", self._input)
        if self._renorms("shortcut2"):
            u = _stock(self.attention_norm, total)
            u = self._normed(self._plus(u, "shortcut2", self._before), "shortcut2")
        else:
            u = _stock(self.attention_norm, self._plus(total, "shortcut2", self._before))
        self._u = u
        return u

    @_uncompiled
    def _around_ffn_norm(self, total: Tensor) -> Tensor:
        """Edit the sum after the feed-forward part before its norm. total: (B, T, D)."""
        total = self._plus(total, "residual2", self._attention_sum)
        if not self._is_open:
            self._u = None
        if self._renorms("shortcut1"):
            v = _stock(self.ffn_norm, total)
            return self._normed(self._plus(v, "shortcut1", self._input), "shortcut1")
        return _stock(self.ffn_norm, self._plus(total, "shortcut1", self._input))

    def _input(self) -> Tensor:
        """Return x (B, T, D), which attention's entry has seen."""
        x = None if self._x is None else self._x()
        assert x is not None
        return x

    def _attention_sum(self) -> Tensor:
        """Return u, which the norm behind attention has seen. (B, T, D) or (B T, D)."""
        assert self._u is not None
        return self._u

    def _before(self) -> Tensor:
        """Return u', the sum after attention of the layer before."""
        return self.stream.sums.get(self._input())

    def _plus(self, total: Tensor, role: str, source: Callable[[], Tensor]) -> Tensor:
        """Return the sum plus a role's term of its source, if the role is on. total: (B, T, D)."""
        if role not in self.on:
            return total
        return total + self.on[role].term(source()).reshape(total.shape).to(total.dtype)

    def _normed(self, total: Tensor, role: str) -> Tensor:
        """Return the sum after the additional norm of the published wiring, where the role has one."""
        return _stock(self.norms[role], total) if self._renorms(role) else total

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to one forward pass."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_x", "_u", "_is_open")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin between two forward passes."""
        self.__dict__.update(state)
        self._x = None
        self._u = None
        self._is_open = False


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states a layer or its attention is called with."""
    return args[0] if args else kwargs["hidden_states"]


def _stock(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run a module's own forward, which the caller replaces, or a norm that is applied once more."""
    return type(module).forward(module, *args, **kwargs)
