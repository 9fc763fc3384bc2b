"""A shortcut at its place in the residual stream, switched like an adapter at a linear."""

from collections.abc import Callable

from torch import Tensor

from model.adapters.adapter import Adapter
from model.injection.attachment import Attachment, Forward
from model.injection.residual_stream import LayerStream
from model.site import Site


class ShortcutAttachment(Attachment):
    """One low-rank map at one place of the stream: it adds strength * low(h) to a sum.

    Args:
        site: where it sits.
        host: its layer; kept as a plain reference, not as a submodule.
        adapter: the low-rank map.
    """

    def __init__(self, site: Site, host: LayerStream, adapter: Adapter) -> None:
        super().__init__(site, adapter)
        self.host = host
        self._install()

    def term(self, h: Tensor) -> Tensor:
        """Return strength times the map of a point of the stream. h: (..., D) -> (..., D)."""
        self._follow_mode(self.host.layer)
        term: Tensor = self.adapter(h)
        return term if self._strength == 1 else self._strength * term

    def merge(self) -> None:
        """Refuse: no weight of the host could take the map.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{self.site.key}: there is no linear here, so the shortcut cannot be merged")

    def unmerge(self) -> None:
        """Do nothing: it is never merged."""

    def wrap_forward(self, wrapper: Callable[[Forward], Forward] | None) -> None:
        """Do nothing: the methods that edit a layer are left out of compiled code anyway."""

    def detach(self) -> None:
        """Remove the term from the stream for good."""
        self.host.switch(self, False)

    def _install(self) -> None:
        self.host.switch(self, self.active)
