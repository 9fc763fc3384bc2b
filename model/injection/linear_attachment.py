"""An adapter at a linear layer; those that read one input compute together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model.adapters.adapter import AdaptedLinear, Adapter, FusedForward
from model.adapters.rematerialisation import NormEpsilons
from model.injection.attachment import Attachment, Forward
from model.site import Site, SiteKey


class LinearAttachment(Attachment):
    """One adapter at one host linear: y = x W^T + b + strength * delta(x).

    Args:
        site: where it sits.
        linear: the host module; kept as a plain reference, not as a submodule.
        adapter: the delta.
        fused_forward: computes base and delta of several attachments that share an input, or None.
        epsilons: the network's, so that `fused_forward` need not save what a layer norm put out.
    """

    linear: nn.Linear
    shared_input: "SharedInput"

    def __init__(
        self,
        site: Site,
        linear: nn.Linear,
        adapter: Adapter,
        fused_forward: FusedForward[Any] | None = None,
        epsilons: NormEpsilons | None = None,
    ) -> None:
        super().__init__(site, adapter)
        self.epsilons = epsilons
        self.__dict__["linear"] = linear  # past nn.Module, which would make it a submodule
        self.shared_input = SharedInput([self])
        self.fused_forward = fused_forward
        self._merged_delta: Tensor | None = None
        self._wrapper: Callable[[Forward], Forward] | None = None
        self.on_detach: Callable[[], None] | None = None
        self._install()

    @property
    def merged(self) -> bool:
        """Whether the delta is part of the host's weight now."""
        return self._merged_delta is not None

    @property
    def is_fused(self) -> bool:
        """Whether base and delta are computed together; a host weight that trains needs the plain way."""
        return self.fused_forward is not None and not self.linear.weight.requires_grad

    def adapted_linear(self) -> AdaptedLinear[Adapter]:
        """Return what a fused computation needs of this site."""
        self._follow_mode(self.linear)
        linear = self.linear
        return AdaptedLinear(linear.weight, linear.bias, self.adapter, self._strength, self.epsilons)

    def compute(self, x: Tensor, members: "Sequence[LinearAttachment]") -> list[Tensor]:
        """Return the outputs of fused members, which all read x: (..., D_in) -> (..., D_out) each."""
        assert self.fused_forward is not None
        return self.fused_forward(x, [member.adapted_linear() for member in members])

    def adapted_forward(self, x: Tensor) -> Tensor:
        """Replace the host's forward. x: (..., D_in) -> (..., D_out)."""
        if self.is_fused:
            return self.shared_input.output(self, x)
        self._follow_mode(self.linear)
        return type(self.linear).forward(self.linear, x) + self._strength * self.adapter(x)

    def merge(self) -> None:
        """Add strength x delta to the host's weight; a second call does nothing.

        Raises:
            ValueError: when the delta depends on the input.
        """
        if self.merged or not self._enabled:
            return
        delta = self.adapter.merged_delta()
        if delta is None:
            raise ValueError(f"{self.site.path}: this adapter depends on its input and cannot be merged")
        with torch.no_grad():
            delta = (self._strength * delta).to(self.linear.weight.dtype)
            self.linear.weight.add_(delta)
        self._merged_delta = delta
        self._install()

    def unmerge(self) -> None:
        """Subtract the delta from the host's weight again; without a merge it does nothing."""
        if self._merged_delta is None:
            return
        with torch.no_grad():
            self.linear.weight.sub_(self._merged_delta)
        self._merged_delta = None
        self._install()

    def detach(self) -> None:
        """Give the host its stock forward back for good."""
        self.linear.__dict__.pop("forward", None)
        if self.on_detach is not None:
            self.on_detach()

    def wrap_forward(self, wrapper: Callable[[Forward], Forward] | None) -> None:
        """Wrap the forward that replaces the host's; None unwraps it."""
        self._wrapper = wrapper
        self._install()

    def _install(self) -> None:
        self.shared_input.forget()
        if self.active:
            forward = self.adapted_forward
            self.linear.__dict__["forward"] = forward if self._wrapper is None else self._wrapper(forward)
        else:
            self.linear.__dict__.pop("forward", None)


class SharedInput:
    """Attachments of one layer that read one tensor: the first called computes all, the others collect.

    It trusts nothing but identity: an output is handed out only for the very tensor it was computed from, in
    the same gradient mode; otherwise it is computed afresh. What is not collected is dropped at the next
    call.

    Args:
        members: all have the same fused forward, or there is only one.
    """

    def __init__(self, members: list[LinearAttachment]) -> None:
        self.members = members
        self._pending: dict[int, Tensor] = {}
        self._source: tuple[Tensor, int, bool] | None = None

    def output(self, caller: LinearAttachment, x: Tensor) -> Tensor:
        """Return the caller's output. x: (..., D_in) -> (..., D_out)."""
        if self._matches(x) and id(caller) in self._pending:
            output = self._pending.pop(id(caller))
            if not self._pending:
                self._source = None
            return output
        # A tensor of inference mode does not count its changes, so it could change unnoticed.
        alone = x.is_inference()
        members = [m for m in self.members if m is caller or (m.active and m.is_fused and not alone)]
        outputs = dict(zip(map(id, members), caller.compute(x, members)))
        own = outputs.pop(id(caller))
        self._pending = outputs
        self._source = (x, x._version, torch.is_grad_enabled()) if outputs else None
        return own

    def forget(self) -> None:
        """Drop what was not collected."""
        self._pending, self._source = {}, None

    def _matches(self, x: Tensor) -> bool:
        if self._source is None:
            return False
        source, version, graded = self._source
        return source is x and version == x._version and graded == torch.is_grad_enabled()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the members alone; outputs in flight belong to one forward pass."""
        return {"members": self.members, "_pending": {}, "_source": None}


def share_inputs(attachments: Mapping[SiteKey, LinearAttachment], groups: Sequence[Sequence[str]]) -> None:
    """Let attachments of one layer whose roles read the same tensor compute together.

    Args:
        attachments: by site.
        groups: roles that share an input, e.g. (("q_proj", "k_proj", "v_proj"), ("gate", "w1")).
    """
    for layer in {key.layer for key in attachments}:
        for group in groups:
            members = [
                attachments[key] for key in (SiteKey(layer, role) for role in group) if key in attachments
            ]
            for fused in {member.fused_forward for member in members if member.fused_forward is not None}:
                shared = SharedInput([member for member in members if member.fused_forward is fused])
                for member in shared.members:
                    member.shared_input = shared
