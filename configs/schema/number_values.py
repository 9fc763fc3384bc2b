"""The kinds of value that are numbers."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from configs.schema.batch_limit import BatchLimit
from configs.schema.values import refusal, shown

# int() and float() also accept full-width digits, underscores and blanks.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = 2**63 - 1


def whole_number(text: str) -> int | None:
    """Read ASCII digits with an optional sign; None for any other text, and for thousands of digits."""
    return int(text) if _WHOLE.fullmatch(text) and len(text) < 4000 else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Whole:
    """A whole number in a range.

    Args:
        low: least value.
        high: greatest value.
        also: allowed values outside the range -> their meaning.
    """

    low: int | None = None
    high: int = _LARGEST
    also: Mapping[int, str] = field(default_factory=dict, hash=False)

    def read(self, text: str) -> int:
        """Read the text of a flag."""
        number = whole_number(text)
        if number is None:
            raise refusal(self.words(), text)
        return self._check(number)

    def take(self, value: Any) -> int:
        """Check a TOML value."""
        if not _is_whole(value):
            raise refusal(self.words(), shown(value))
        return self._check(value)

    def words(self) -> str:
        """Describe the range."""
        limits = "" if self.low is None else f" of at least {self.low}"
        if self.high != _LARGEST:
            limits = f" in [{self.low}, {self.high}]"
        also = "".join(f" or {value} ({meaning})" for value, meaning in self.also.items())
        return f"a whole number{limits}{also}"

    def _check(self, number: int) -> int:
        least = -_LARGEST if self.low is None else self.low
        if number in self.also or least <= number <= self.high:
            return number
        if number > self.high == _LARGEST:
            raise refusal(f"a whole number of at most {self.high}", str(number))
        raise refusal(self.words(), str(number))


@dataclass(frozen=True)
class Real:
    """A finite number in a range.

    Args:
        low: least value.
        high: greatest value.
        low_open: `low` itself is excluded.
        high_open: `high` itself is excluded.
    """

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def read(self, text: str) -> float:
        """Read the text of a flag."""
        return self._check(float(text) if _DECIMAL.fullmatch(text) else math.nan, text)

    def take(self, value: Any) -> float:
        """Check a TOML value; a whole number is converted."""
        if not _is_whole(value) and not isinstance(value, float):
            raise refusal(self.words(), shown(value))
        try:
            return self._check(float(value), shown(value))
        except OverflowError:
            raise refusal(self.words(), shown(value)) from None

    def words(self) -> str:
        """Describe the range."""
        if self.low is None:
            return "a finite number"
        if self.high is None:
            return f"a finite number {'above' if self.low_open else 'of at least'} {self.low:g}"
        opening, closing = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"a number in {opening}{self.low:g}, {self.high:g}{closing}"

    def _check(self, number: float, written: str) -> float:
        too_low = self.low is not None and (number <= self.low if self.low_open else number < self.low)
        too_high = self.high is not None and (number >= self.high if self.high_open else number > self.high)
        if not math.isfinite(number) or too_low or too_high:
            raise refusal(self.words(), written)
        return number


@dataclass(frozen=True)
class Batches:
    """A number of batches or a ratio of all: a number without dot and exponent is a number of batches."""

    def read(self, text: str) -> BatchLimit:
        """Read the text of a flag."""
        whole = whole_number(text)
        if whole is not None:
            return self._count(whole, text)
        return self._ratio(float(text) if _DECIMAL.fullmatch(text) else math.nan, text)

    def take(self, value: Any) -> BatchLimit:
        """Check a TOML value."""
        if _is_whole(value):
            return self._count(value, str(value))
        return self._ratio(value if isinstance(value, float) else math.nan, shown(value))

    def words(self) -> str:
        """Describe both forms."""
        return "a whole number of at least 1, or a ratio in (0, 1] written with a dot"

    def _count(self, count: int, written: str) -> BatchLimit:
        if not 1 <= count <= _LARGEST:
            raise refusal(self.words(), written)
        return BatchLimit(count=count)

    def _ratio(self, ratio: float, written: str) -> BatchLimit:
        if not 0 < ratio <= 1:
            raise refusal(self.words(), written)
        return BatchLimit(ratio=ratio)
