"""An adapter at a site: part of the host's forward pass while it is on, without a trace when it is off."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from model.adapters.adapter import Adapter
from model.site import Site, SiteKey

Forward = Callable[..., Any]
"""A module's `forward`, whatever it takes and returns."""


class Attachment(nn.Module, ABC):
    """One adapter at one site of a host network, with a switch and a strength.

    A host that runs the adapter has a bound method of the attachment as its `forward`, set on the instance:
    it keeps its class, its place and its state-dict keys. While the attachment is off (disabled, merged, or
    strength 0) that override is gone and the stock forward runs, bit for bit and at its cost. Switching a
    merged adapter, or giving it another strength, unmerges it first.

    Args:
        site: where it sits.
        adapter: the delta.
    """

    def __init__(self, site: Site, adapter: Adapter) -> None:
        super().__init__()
        self.site = site
        self.adapter = adapter
        self._enabled = True
        self._strength = 1.0

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
        """Whether the delta is part of the host's weight now."""
        return False

    @property
    def active(self) -> bool:
        """Whether a forward pass of the host runs the adapter."""
        return self._enabled and self._strength != 0 and not self.merged

    @abstractmethod
    def merge(self) -> None:
        """Add strength x delta to the host's weight; a second call does nothing.

        Raises:
            ValueError: when there is no such matrix, or no such weight.
        """

    @abstractmethod
    def unmerge(self) -> None:
        """Subtract the delta from the host's weight again; without a merge it does nothing."""

    @abstractmethod
    def detach(self) -> None:
        """Give the host its stock forward back for good."""

    @abstractmethod
    def wrap_forward(self, wrapper: Callable[[Forward], Forward] | None) -> None:
        """Wrap the forward that replaces the host's, where compiled code would run it; None unwraps it."""

    @abstractmethod
    def _install(self) -> None:
        """Set or remove the host's override, according to `active`."""

    def _follow_mode(self, host: nn.Module) -> None:
        """Take the host's mode over: `network.eval()` alone must switch off the adapter's dropout too."""
        if self.adapter.training != host.training:
            self.adapter.train(host.training)


def switch(attachments: Mapping[SiteKey, Attachment], on: Mapping[str, bool]) -> None:
    """Switch every attachment as recorded; modules that are not in the record are off.

    Args:
        attachments: by site.
        on: site, as text, -> whether it is on.
    """
    for key, attachment in attachments.items():
        enabled = on.get(str(key), False)
        if attachment.enabled != enabled:
            attachment.enabled = enabled
