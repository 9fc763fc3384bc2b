"""A table binds to a dataclass strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from configs.runtime.faults import InputFault
from configs.schema.number_values import Real
from configs.toml.binding import bind


@dataclass(frozen=True)
class Part:
    """A nested table."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Whole:
    """One field of every type."""

    count: int
    share: Annotated[float, Real(0, 1)] = 0.5
    is_on: bool = False
    text: str | None = None
    path: Path | None = None
    names: tuple[str, ...] = ()
    mode: Literal["fast", "slow"] = "fast"
    parts: tuple[Part, ...] = ()
    columns: Mapping[str, str] | None = None
    either: int | str = 0
    anything: Any = None

    def __post_init__(self):
        if self.count == 13:
            raise ValueError("count: 13 is not wanted")


def test_every_type_binds(here):
    table = {
        "count": 3,
        "share": 1,
        "is_on": True,
        "text": "x",
        "path": "a/b",
        "names": ["p", "q"],
        "mode": "slow",
        "parts": [{"name": "p"}, {"name": "q", "weight": 2}],
        "columns": {"a": "b"},
        "either": "word",
        "anything": [1],
    }
    parts = (Part("p"), Part("q", 2.0))
    columns = {"a": "b"}
    expected = Whole(3, 1.0, True, "x", here / "a/b", ("p", "q"), "slow", parts, columns, "word", [1])
    assert bind(Whole, table, "f") == expected
    assert bind(Whole, {"count": 1}, "f") == Whole(1)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({}, "f: count: required"),
        ({"count": 1, "shrae": 1.0}, "f: unknown key 'shrae'; did you mean 'share'?"),
        ({"count": "1"}, 'f: count: must be a whole number, got "1"'),
        ({"count": True}, "f: count: must be a whole number, got true"),
        ({"count": 1, "share": 2}, "f: share: must be a number in [0, 1], got 2"),
        ({"count": 1, "is_on": 1}, "f: is_on: must be true or false, got 1"),
        ({"count": 1, "text": 1}, "f: text: must be a string, got 1"),
        ({"count": 1, "names": "p"}, 'f: names: must be a list, got "p"'),
        ({"count": 1, "names": [1]}, "f: names[0]: must be a string, got 1"),
        ({"count": 1, "mode": "fats"}, "f: mode: no value 'fats', one of fast, slow; did you mean 'fast'?"),
        ({"count": 1, "mode": 1}, "f: mode: must be one of fast, slow, got 1"),
        ({"count": 1, "parts": [{}]}, "f: parts[0]: name: required"),
        ({"count": 1, "parts": [1]}, "f: parts[0]: must be a table, got 1"),
        ({"count": 1, "columns": {"a": 1}}, "f: columns.a: must be a string, got 1"),
        ({"count": 13}, "f: count: 13 is not wanted"),
    ],
)
def test_faults_are_named(table, line):
    with pytest.raises(InputFault) as refusal:
        bind(Whole, table, "f")
    assert refusal.value.lines == (line,)


def test_all_faults_come_at_once():
    with pytest.raises(InputFault) as refusal:
        bind(Whole, {"cuont": 1, "share": "x"}, "f")
    assert len(refusal.value.lines) == 3
