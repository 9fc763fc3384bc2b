"""Count trainable parameters by what they belong to."""

from collections.abc import Collection, Mapping

from torch import nn

from model.adapters.adapter import is_router
from model.injection.attachment import Attachment
from model.site import SiteKey

GROUPS = ("adapters", "router_or_gates", "head", "other")


def trainable_counts(
    network: nn.Module, attachments: Mapping[SiteKey, Attachment], head: Collection[str]
) -> dict[str, int]:
    """Return how many parameters require a gradient in each of `GROUPS`; a shared tensor counts once.

    Args:
        network: the host.
        attachments: by site.
        head: dotted names of the network's head modules.
    """
    groups: dict[nn.Parameter, str] = {
        parameter: "head" if is_within_head(name, head) else "other"
        for name, parameter in network.named_parameters()
    }
    for attachment in attachments.values():
        for name, parameter in attachment.adapter.named_parameters():
            groups[parameter] = "router_or_gates" if is_router(attachment.adapter, name) else "adapters"
    counts = dict.fromkeys(GROUPS, 0)
    for parameter, group in groups.items():
        counts[group] += parameter.numel() if parameter.requires_grad else 0
    return counts


def is_within_head(name: str, head: Collection[str]) -> bool:
    """Return whether a parameter, by its dotted name in the network, belongs to a head module."""
    return any(name.startswith(f"{module}.") for module in head)
