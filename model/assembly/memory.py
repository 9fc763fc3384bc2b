"""The memory that planned adapters need, compared with the machine's before anything is allocated."""

from collections.abc import Mapping

from configs.runtime.faults import InputFault
from configs.runtime.memory import memory_fault
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

_BYTES = 4
_COPIES = 4
"""Float32 numbers for each parameter that trains: itself, its gradient, and two moments of AdamW."""


def site_bytes(site: Site, config: AdapterConfig) -> int:
    """Return the bytes of a module's A and B in training: R (D_in + D_out) numbers, four times."""
    return _COPIES * _BYTES * config.rank * (site.in_features + site.out_features)


def memory_faults(
    sites: Mapping[SiteKey, Site], configs: Mapping[SiteKey, AdapterConfig], memory: int | None = None
) -> list[str]:
    """Return why planned adapters cannot fit into a machine's memory.

    Args:
        sites: every site.
        configs: the planned adapters. Plain LoRAs are added up; others may share matrices, so only the
            largest of them counts.
        memory: bytes of the machine; None: of this one.
    """
    if not configs:
        return []
    sizes = {key: site_bytes(sites[key], config) for key, config in configs.items()}
    total = sum(size for key, size in sizes.items() if configs[key].method == "lora")
    largest = max(sizes, key=lambda key: sizes[key])
    fault = memory_fault(max(total, sizes[largest]), memory)
    named = f"the largest is {largest} with r = {configs[largest].rank}"
    return [] if fault is None else [f"training the adapters needs {fault}; {named}"]


def require_memory(
    sites: Mapping[SiteKey, Site], configs: Mapping[SiteKey, AdapterConfig], where: str
) -> None:
    """Refuse planned adapters that do not fit into this machine's memory.

    Args:
        sites: every site.
        configs: the planned adapters.
        where: the file that plans them, for the message.

    Raises:
        InputFault: naming the file, both sizes and the largest module.
    """
    faults = memory_faults(sites, configs)
    if faults:
        raise InputFault(*(f"{where}: r: {fault}" for fault in faults))
