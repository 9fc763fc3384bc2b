"""A shortcut at its place in the residual stream, switched like an adapter at a linear."""

from collections.abc import Callable

from torch import Tensor, nn

from model.injection.residual_stream import LayerStream
from model.site import Site


class StreamAttachment(nn.Module):
    """A shortcut at its place in the stream; it is switched like an `Attachment` at a linear.

    Args:
        site: where it sits.
        host: its layer; kept as a plain reference, not as a submodule.
        adapter: the low-rank map.
    """

    merged = False

    def __init__(self, site: Site, host: LayerStream, adapter: nn.Module) -> None:
        super().__init__()
        self.site = site
        self.adapter = adapter
        self.__dict__["host"] = host
        self._enabled = True
        self._strength = 1.0
        host.switch(self, True)

    @property
    def enabled(self) -> bool:
        """Whether the shortcut takes part; its tensors stay either way."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        self.host.switch(self, self.active)

    @property
    def strength(self) -> float:
        """Importance coefficient: multiplies the term, so that 0 equals disabled."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = value
        self.host.switch(self, self.active)

    @property
    def active(self) -> bool:
        """Whether a forward pass of the host runs the shortcut."""
        return self._enabled and self._strength != 0

    def term(self, h: Tensor) -> Tensor:
        """Return strength times the map of a point of the stream. h: (..., D) -> (..., D)."""
        if self.adapter.training != self.host.layer.training:
            # `network.eval()` alone must silence the dropout here too.
            self.adapter.train(self.host.layer.training)
        term = self.adapter(h)
        return term if self._strength == 1 else self._strength * term

    def merge(self) -> None:
        """Refuse: no weight of the host could take the map.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.site.key}: no linear stands here, so the shortcut cannot be merged")

    def unmerge(self) -> None:
        """Do nothing: it is never merged."""

    def surround(self, around: Callable | None) -> None:
        """Do nothing: what stands in for the host's code is left out of compiled code as it is."""

    def detach(self) -> None:
        """Take no more part, for good."""
        self.host.switch(self, False)
