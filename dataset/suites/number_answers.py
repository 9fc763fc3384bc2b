"""Score a generated answer to a word problem against the number after `####`."""

import re
from decimal import Decimal

_STRICT = re.compile(r"#### *([-+]?\$?[-+]?[0-9.,]*[0-9])")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
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
    match = _STRICT.search(text)
    return parse_number(match.group(1)) if match else None


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, without commas; None when it has none."""
    found = _NUMBER.findall(text.replace(",", ""))
    return parse_number(found[-1]) if found else None


def parse_number(text: str) -> Decimal | None:
    """Return a number written with commas, dollar sign or final full stop; None when it is no number."""
    bare = text.strip().replace(",", "").replace("$", "").rstrip(".")
    return Decimal(bare) if _WRITTEN.fullmatch(bare) else None
