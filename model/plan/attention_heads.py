"""A projection planned by head: its configuration from those of its heads, and what they must agree in."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from model.plan.adapter_config import AdapterConfig

_SHARED = {"lora_dropout": "dropout", "method": "method"}
"""TOML key -> field, for the settings of the one module and its one input, which all heads share."""


def projection_config(heads: Sequence[AdapterConfig]) -> AdapterConfig:
    """Return the configuration of a projection from those of its heads, with the importance that all share.

    Where some heads are on, those that are off get no tensors, as if their rank were 0: later only whole
    projections are switched. Where no head is on, the projection is off and its heads have their tensors.
    """
    built = _built_heads(heads)
    if not built:
        return replace(heads[0], rank=0)
    first = heads[built[0]]
    is_shared = {heads[number].importance for number in built} == {first.importance}
    parts = [replace(head, rank=0, importance=1.0, disabled=False) for head in heads]
    for number in built:
        own = 1.0 if is_shared else heads[number].importance
        parts[number] = replace(heads[number], importance=own, disabled=False)
    return replace(
        first,
        rank=sum(part.rank for part in parts),
        disabled=all(heads[number].disabled for number in built),
        importance=first.importance if is_shared else 1.0,
        fan_in_fan_out=any(heads[number].fan_in_fan_out for number in built),
        heads=tuple(parts),
    )


def head_configs(config: AdapterConfig) -> tuple[AdapterConfig, ...]:
    """Return the configurations of a projection's heads as their own tables give them; none without heads."""
    return tuple(
        replace(head, importance=head.importance * config.importance, disabled=config.disabled)
        for head in config.heads
    )


def head_conflicts(where: str, named: Sequence[tuple[str, AdapterConfig]]) -> list[str]:
    """Return a fault for the first setting that the heads of one projection share and yet differ in.

    Args:
        where: the projection, for example `q_proj in layer 0`.
        named: for each head the name of its table and its configuration.

    Returns:
        one line without the file's name, or none.
    """
    built = _built_heads([config for _, config in named])
    if not built:
        return []
    (first, config), base = named[built[0]], built[0]
    for number in built:
        name, other = named[number]
        for key, field in _SHARED.items():
            mine, theirs = getattr(config, field), getattr(other, field)
            if mine != theirs:
                what = f"head {number} of {where} has {theirs}, head {base} ([{first}]) has {mine}"
                return [f"[{name}] {key}: {what}; the heads of one projection share this setting"]
        if config.extra != other.extra:
            what = f"head {number} of {where} and head {base} ([{first}])"
            return [f"[{name}]: {what} differ in the keys of their method"]
    return []


def _built_heads(heads: Sequence[AdapterConfig]) -> list[int]:
    """Return the numbers of the heads that get tensors: those that are on, or else those that could be."""
    conditions: tuple[Callable[[AdapterConfig], bool], ...] = (
        lambda head: head.is_on,
        lambda head: head.rank > 0 and head.importance != 0,
        lambda head: head.rank > 0,
    )
    for condition in conditions:
        numbers = [number for number, head in enumerate(heads) if condition(head)]
        if numbers:
            return numbers
    return []
