"""Counts among the options of data sets."""


def count_faults(name: str, count: int | None) -> list[str]:
    """Say why a number of `[data]` is no count; None stands for one that was not given."""
    if count is not None and count < 1:
        return [f"data.{name}: must be a whole number of at least 1, got {count}"]
    return []
