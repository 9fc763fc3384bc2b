"""A projection planned by head: what its heads make together, and what they must share."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from model.plan.adapter_config import AdapterConfig

_SHARED = {"lora_dropout": "dropout", "method": "method"}
"""Keys that a projection's one input and one module decide, and the fields they are in."""


def projection(heads: Sequence[AdapterConfig]) -> AdapterConfig:
    """Return the configuration of a projection from those of its heads, with the importance that all share.

    A head that is off beside heads that are on gets no tensors, as if its rank were 0: only projections as a
    whole are switched later. Where no head is on, the projection is off and its heads have their tensors.
    """
    built = _built(heads)
    if not built:
        return replace(heads[0], rank=0)
    first = heads[built[0]]
    shares = {heads[number].importance for number in built} == {first.importance}
    parts = [replace(head, rank=0, importance=1.0, disabled=False) for head in heads]
    for number in built:
        own = 1.0 if shares else heads[number].importance
        parts[number] = replace(heads[number], importance=own, disabled=False)
    return replace(
        first,
        rank=sum(part.rank for part in parts),
        disabled=all(heads[number].disabled for number in built),
        importance=first.importance if shares else 1.0,
        fan_in_fan_out=any(heads[number].fan_in_fan_out for number in built),
        heads=tuple(parts),
    )


def apart(config: "AdapterConfig") -> tuple[AdapterConfig, ...]:
    """Return the configurations of a projection's heads as their own tables give them; none without heads."""
    return tuple(
        replace(head, importance=head.importance * config.importance, disabled=config.disabled)
        for head in config.heads
    )


def disagreement(where: str, named: Sequence[tuple[str, AdapterConfig]]) -> list[str]:
    """Say what heads of one projection differ in though they share it.

    Args:
        where: the projection, for example `q_proj in layer 0`.
        named: for each head the name of its table and its configuration.
    """
    built = _built([config for _, config in named])
    if not built:
        return []
    (first, config), base = named[built[0]], built[0]
    for number in built:
        name, other = named[number]
        for key, field in _SHARED.items():
            mine, theirs = getattr(config, field), getattr(other, field)
            if mine != theirs:
                what = f"head {number} of {where} has {theirs}, head {base} ([{first}]) has {mine}"
                return [f"[{name}] {key}: {what}; the heads of one projection share it"]
        if config.extra != other.extra:
            what = f"head {number} of {where} and head {base} ([{first}])"
            return [f"[{name}]: {what} differ in keys of their method"]
    return []


def _built(heads: Sequence[AdapterConfig]) -> list[int]:
    """Return the heads that get tensors: those that are on; where none is, those that could be."""
    manners: tuple[Callable[[AdapterConfig], bool], ...] = (
        lambda head: head.is_on,
        lambda head: head.rank > 0 and head.importance != 0,
        lambda head: head.rank > 0,
    )
    for manner in manners:
        numbers = [number for number, head in enumerate(heads) if manner(head)]
        if numbers:
            return numbers
    return []
