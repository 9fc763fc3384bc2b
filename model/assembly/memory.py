"""The memory that planned adapters need, compared with the machine's before anything is allocated."""

import os
from collections.abc import Mapping

from configs.runtime.faults import InputFault
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey

_BYTES = 4
_COPIES = 4
"""Float32 numbers for each parameter that trains: itself, its gradient, and two moments of AdamW."""
_GIB = 2**30


def site_bytes(site: Site, config: AdapterConfig) -> int:
    """Return the bytes of a module's A and B in training: R (D_in + D_out) numbers, four times."""
    return _COPIES * _BYTES * config.rank * (site.in_features + site.out_features)


def memory_faults(
    sites: Mapping[SiteKey, Site], configs: Mapping[SiteKey, AdapterConfig], memory: int
) -> list[str]:
    """Return why planned adapters cannot fit into a machine's memory.

    Args:
        sites: every site.
        configs: the planned adapters. Plain LoRAs are added up; others may share matrices, so only the
            largest of them counts.
        memory: bytes of the machine.
    """
    if not configs:
        return []
    sizes = {key: site_bytes(sites[key], config) for key, config in configs.items()}
    total = sum(size for key, size in sizes.items() if configs[key].method == "lora")
    largest = max(sizes, key=lambda key: sizes[key])
    needed = max(total, sizes[largest])
    if needed <= memory:
        return []
    sizes_shown = f"at least {needed / _GIB:,.1f} GiB, this machine has {memory / _GIB:,.1f}"
    named = f"the largest is {largest} with r = {configs[largest].rank}"
    return [f"training the adapters needs {sizes_shown}; {named}"]


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
    if not hasattr(os, "sysconf"):  # Windows
        return
    faults = memory_faults(sites, configs, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if faults:
        raise InputFault(*(f"{where}: r: {fault}" for fault in faults))
