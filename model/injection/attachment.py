"""An adapter at a site: it owns the host linear's forward while it is on and leaves no trace when off."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from model.adapters.adapter import AdaptedLinear, FusedForward
from model.adapters.rematerialisation import NormEpsilons
from model.site import Site, SiteKey


class Attachment(nn.Module):
    """One adapter at one host linear.

    While it is on, the host's `forward` is a bound method of this object, set on the instance: the host keeps
    its class, its place and its state-dict keys. While it is off (disabled, merged, or strength 0) that
    override is gone and the stock forward runs, bit for bit and at its cost. Switching a merged adapter, or
    giving it another strength, unmerges it first.

    Args:
        site: where it sits.
        linear: the host module; kept as a plain reference, not as a submodule.
        adapter: the delta.
        fused_forward: computes base and delta of several attachments that share an input, or None.
        epsilons: the network's, so that `fused_forward` need not keep what a layer norm put out.
    """

    def __init__(
        self,
        site: Site,
        linear: nn.Linear,
        adapter: nn.Module,
        fused_forward: FusedForward | None = None,
        epsilons: NormEpsilons | None = None,
    ) -> None:
        super().__init__()
        self.site = site
        self.epsilons = epsilons
        self.adapter = adapter
        self.__dict__["linear"] = linear
        self.__dict__["shared_input"] = SharedInput([self])
        self.fused_forward = fused_forward
        self._enabled = True
        self._strength = 1.0
        self._merged: Tensor | None = None
        self._around: Callable | None = None
        self._install()

    @property
    def enabled(self) -> bool:
        """Whether the adapter takes part; its tensors stay either way."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.unmerge()
        self._enabled = value
        self._install()

    @property
    def strength(self) -> float:
        """Importance coefficient: multiplies the delta alone, so that 0 equals disabled."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.unmerge()
        self._strength = value
        self._install()

    @property
    def merged(self) -> bool:
        """Whether the delta currently stands in the host's weight."""
        return self._merged is not None

    @property
    def active(self) -> bool:
        """Whether a forward pass of the host runs the adapter."""
        return self._enabled and self._strength != 0 and not self.merged

    @property
    def is_fused(self) -> bool:
        """Whether base and delta are computed together; a host weight that trains needs the plain way."""
        return self.fused_forward is not None and not self.linear.weight.requires_grad

    def adapted_linear(self) -> AdaptedLinear:
        """Return what a fused computation needs of this site."""
        self._follow()
        return AdaptedLinear(
            self.linear.weight, self.linear.bias, self.adapter, self._strength, self.epsilons
        )

    def compute(self, x: Tensor, members: "Sequence[Attachment]") -> list[Tensor]:
        """Return the outputs of the members, which all read x: (..., D_in) -> (..., D_out) each."""
        return self.fused_forward(x, [member.adapted_linear() for member in members])

    def adapted(self, x: Tensor) -> Tensor:
        """Stand in for the host's forward. x: (..., D_in) -> (..., D_out)."""
        if self.is_fused:
            return self.shared_input.output(self, x)
        self._follow()
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
        self._merged = delta
        self._install()

    def unmerge(self) -> None:
        """Take the delta out of the host's weight again; without a merge it does nothing."""
        if self._merged is None:
            return
        with torch.no_grad():
            self.linear.weight.sub_(self._merged)
        self._merged = None
        self._install()

    def detach(self) -> None:
        """Give the host its stock forward back for good."""
        self.linear.__dict__.pop("forward", None)

    def surround(self, around: Callable | None) -> None:
        """Put a function around the forward that stands in for the host's; None takes it away."""
        self._around = around
        self._install()

    def _follow(self) -> None:
        """Take the host's mode over: `network.eval()` alone must silence the adapter's dropout too."""
        if self.adapter.training != self.linear.training:
            self.adapter.train(self.linear.training)

    def _install(self) -> None:
        self.shared_input.forget()
        if self.active:
            around = self._around
            self.linear.__dict__["forward"] = self.adapted if around is None else around(self.adapted)
        else:
            self.linear.__dict__.pop("forward", None)


class SharedInput:
    """Attachments of one layer that read one tensor: the first called computes all, the others collect.

    It trusts nothing but identity: an output is handed out only for the very tensor it was computed from, in
    the same gradient mode; else it is computed afresh. What is not collected is dropped at the next call.
    """

    def __init__(self, members: "list[Attachment]") -> None:
        self.members = members
        self._pending: dict[int, Tensor] = {}
        self._source: tuple[Tensor, int, bool] | None = None

    def output(self, caller: Attachment, x: Tensor) -> Tensor:
        """Return the caller's output. x: (..., D_in) -> (..., D_out)."""
        if self._matches(x) and id(caller) in self._pending:
            output = self._pending.pop(id(caller))
            if not self._pending:
                self._source = None
            return output
        # A tensor of inference mode does not count its changes, so nothing can vouch for it later.
        alone = x.is_inference()
        members = [m for m in self.members if m is caller or (m.active and m.is_fused and not alone)]
        outputs = dict(zip(map(id, members), caller.compute(x, members)))
        mine = outputs.pop(id(caller))
        self._pending = outputs
        self._source = (x, x._version, torch.is_grad_enabled()) if outputs else None
        return mine

    def forget(self) -> None:
        """Drop what was not collected."""
        self._pending, self._source = {}, None

    def _matches(self, x: Tensor) -> bool:
        if self._source is None:
            return False
        source, version, graded = self._source
        return source is x and version == x._version and graded == torch.is_grad_enabled()

    def __getstate__(self) -> dict:
        """Copies and pickles hold the members alone; outputs in flight belong to one forward pass."""
        return {"members": self.members, "_pending": {}, "_source": None}


def switch(attachments: Mapping[SiteKey, Attachment], on: Mapping[str, bool]) -> None:
    """Switch every attachment as a record says; what it does not name is off.

    Args:
        attachments: by site.
        on: site, as text, -> whether it is on.
    """
    for key, attachment in attachments.items():
        enabled = on.get(str(key), False)
        if attachment.enabled != enabled:
            attachment.enabled = enabled


def join(attachments: Mapping[SiteKey, Attachment], groups: Sequence[Sequence[str]]) -> None:
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
            for kind in {member.fused_forward for member in members if member.fused_forward is not None}:
                shared = SharedInput([member for member in members if member.fused_forward is kind])
                for member in shared.members:
                    member.__dict__["shared_input"] = shared
