"""The effective configuration as a table: every value with its source."""

from typing import Any

from configs import console
from configs.cli import Bound


def show_config(bound: Bound, *, everything: bool) -> None:
    """Print the options with their sources.

    Args:
        bound: the checked command line.
        everything: show defaults too, not only what was given.
    """
    rows = [
        (name, _word(getattr(bound.options, name)), source)
        for name, source in bound.sources.items()
        if name != "config" and (everything or source != "default")
    ]
    console.table("Configuration", ("option", "value", "source"), rows)


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
