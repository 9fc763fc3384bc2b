r"""Score a generated answer to a word problem against the number after `####`.

A number is `sign currency digits`: an optional `-`, an optional `$`, `€` or `£`, then digits with an optional
decimal part, or a decimal part alone (`.5`). Before numbers are looked for, commas are removed, also as LaTeX
writes them (`9{,}500`), and spaces that group three digits (`9\,500`, no-break and thin spaces); `\$` becomes
`$`, the minus sign U+2212 becomes `-`. An ordinary space always separates two numbers.
"""

import re
from decimal import Decimal

_COMMA = re.compile(r"\{,\}|,|(?<=[0-9])(?:\\,|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
_CURRENCY = "[$€£]"
_STRICT = re.compile(rf"#### *([-+]?{_CURRENCY}?[-+]?[0-9.]*[0-9])")
# A point after a word, a digit or a point ends a sentence or is an ellipsis: `all.5` holds 5.
_NUMBER = re.compile(rf"-?{_CURRENCY}?(?:[0-9]+(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)")
# White space, emphasis and what begins mathematics may come before it: `**18**`, `$\boxed{18}$`.
_OPENING = r"(?:\s|\*|\$|\\boxed\{|\\[(\[])*?"
_LEADING = re.compile(rf"{_OPENING}([-+]?{_CURRENCY}?[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+))")
_WRITTEN = re.compile(r"[-+]?[0-9]*\.?[0-9]+")
_TOLERANCE = Decimal("0.001")


def score_number(text: str, gold: str) -> dict[str, float]:
    """Return `exact_match` (first `#### n`) and `exact_match_flexible` (last number, within 0.001), 0 or 1.

    Args:
        text: the generated answer.
        gold: the right number, as it is written.
    """
    wanted = parse_number(gold)
    strict, flexible = strict_number(text), last_number(text)
    return {
        "exact_match": float(wanted is not None and strict == wanted),
        "exact_match_flexible": float(
            wanted is not None and flexible is not None and abs(flexible - wanted) <= _TOLERANCE
        ),
    }


def strict_number(text: str) -> Decimal | None:
    """Return the number after the first `####`; text that a model adds after its answer is ignored."""
    match = _STRICT.search(_plain(text))
    return parse_number(match.group(1)) if match else None


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text; None when it has none."""
    found = _NUMBER.findall(_plain(text))
    return parse_number(found[-1]) if found else None


def last_whole_number(text: str) -> Decimal | None:
    """Return the last number of a text that has no decimal part; None when it has none."""
    found = [number for number in _NUMBER.findall(_plain(text)) if "." not in number]
    return parse_number(found[-1]) if found else None


def leading_number(text: str) -> Decimal | None:
    """Return the number that a text begins with, after white space and opening marks; None without one."""
    match = _LEADING.match(_plain(text))
    return parse_number(match.group(1)) if match else None


def parse_number(text: str) -> Decimal | None:
    """Return a number written with commas, currency sign or final full stop; None when it is no number."""
    bare = re.sub(_CURRENCY, "", _plain(text).strip()).rstrip(".")
    return Decimal(bare) if _WRITTEN.fullmatch(bare) else None


def _plain(text: str) -> str:
    """Return a text without what groups digits, and with one form of minus and currency sign."""
    return _COMMA.sub("", text.replace("\u2212", "-").replace("\\$", "$"))
