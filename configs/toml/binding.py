"""Bind a TOML table to a frozen dataclass; all unknown, missing and mistyped keys are reported at once."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from configs.runtime.faults import InputFault, suggestion
from configs.schema.number_values import Real, Whole
from configs.schema.values import Choice, PathText, Switch, ValueKind, shown


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Bindable = TypeVar("Bindable", bound=Dataclass)
_PLAIN: Mapping[Any, ValueKind] = {int: Whole(), float: Real(), bool: Switch(), Path: PathText()}


def bind(cls: type[Bindable], table: Mapping[str, Any], where: str) -> Bindable:
    """Return `cls(**table)` after checking every key and type.

    Fields may be int, float (finite; whole numbers are converted), bool, str, Path (made absolute), Literal,
    `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, another dataclass, or `Annotated[X, KIND]` with a kind of
    value from `configs.schema`, such as `Whole(1)`. A ValueError of `__post_init__` becomes a fault of the
    table.

    Args:
        cls: the dataclass.
        table: the TOML table.
        where: the beginning of every message, e.g. `run.toml: [data]`.

    Raises:
        InputFault: with a line for each fault.
    """
    hints, values = get_type_hints(cls, include_extras=True), {}
    known = [one.name for one in fields(cls) if one.init]
    faults = [f"{where}: unknown key '{key}'{suggestion(key, known)}" for key in table if key not in known]
    for one in fields(cls):
        if one.init and one.name in table:
            try:
                values[one.name] = _take(hints[one.name], table[one.name], f"{where}: {one.name}")
            except InputFault as refusal:
                faults += refusal.lines
        elif one.init and one.default is MISSING and one.default_factory is MISSING:
            faults.append(f"{where}: {one.name}: required")
    if faults:
        raise InputFault(*faults)
    try:
        return cls(**values)
    except ValueError as refusal:
        raise InputFault(f"{where}: {refusal}") from None


def _take(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _optional(arguments, value, where)
    if origin is tuple:
        return _items(arguments, value, where)
    is_own = isinstance(hint, type) and is_dataclass(hint)
    if is_own or origin in (Mapping, dict):
        if not isinstance(value, Mapping):
            raise InputFault(f"{where}: must be a table, got {shown(value)}")
        if is_own:
            return bind(hint, value, where)
        return {key: _take(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint is str:
        if not isinstance(value, str):
            raise InputFault(f"{where}: must be a string, got {shown(value)}")
        return value
    if get_origin(hint) is Literal:
        return _literal(get_args(hint), value, where)
    kind = get_args(hint)[1] if get_origin(hint) is Annotated else _PLAIN[hint]
    try:
        return kind.take(value)
    except ValueError as refusal:
        raise InputFault(f"{where}: {refusal}") from None


def _literal(allowed: tuple[Any, ...], value: Any, where: str) -> Any:
    if any(type(value) is type(one) and value == one for one in allowed):
        return value
    if isinstance(value, str) and all(isinstance(one, str) for one in allowed):
        try:
            return Choice("value", allowed).take(value)
        except ValueError as refusal:
            raise InputFault(f"{where}: {refusal}") from None
    raise InputFault(f"{where}: must be one of {', '.join(map(str, allowed))}, got {shown(value)}")


def _optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    """Bind `X | None` and `X | Y`: the first type that fits; otherwise the message of the last one."""
    refusal: InputFault | None = None
    for hint in arguments:
        if hint is NoneType:
            continue
        try:
            return _take(hint, value, where)
        except InputFault as fault:
            refusal = fault
    raise refusal or InputFault(f"{where}: takes no value")


def _items(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputFault(f"{where}: must be a list, got {shown(value)}")
    if len(arguments) == 2 and arguments[1] is ...:
        hints: Sequence[Any] = [arguments[0]] * len(value)
    elif len(arguments) == len(value):
        hints = arguments
    else:
        raise InputFault(f"{where}: must be a list of {len(arguments)} items, got {len(value)}")
    return tuple(
        _take(hint, item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(hints, value))
    )
