"""The memory of this machine, compared with what is about to be allocated."""

import os

_GIB = 2**30


def machine_memory() -> int | None:
    """Return the bytes of main memory; None where the system does not tell (Windows)."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_fault(needed: int, memory: int | None = None) -> str | None:
    """Return both sizes where something does not fit; None where it does, or where the size is not known.

    Args:
        needed: bytes.
        memory: bytes of the machine; None: of this one.
    """
    available = machine_memory() if memory is None else memory
    if available is None or needed <= available:
        return None
    return f"at least {needed / _GIB:,.1f} GiB, this machine has {available / _GIB:,.1f}"
