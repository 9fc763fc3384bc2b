"""Score a generated answer to a word problem against the number that ends it, in the language of the problem.

The answer is the number after the final-answer phrase ("La respuesta es:"), else after the first `####`, else
after the last `>>` or `=`, else the last whole number; a step that finds no number leaves it to the next one.
Numbers are read as in `dataset.suites.number_answers`: a comma groups digits in every language.

Source: Wang et al. 2024 (LoRA-Flow), 2402.11455, released evaluation code.
Differs: the phrase is that of the language, where the released code looks for the English one; signs and
decimal points are kept, where it removes all but the digits; `>>` has no precedence over a later `=`.
"""

import re
from decimal import Decimal

from dataset.suites.number_answers import last_whole_number, leading_number, parse_number, strict_number

_COLON = "[:\uff1a]"
"""A colon, as Latin and as Chinese text is set."""
_MARK = re.compile(">>|=")
_REACH = 200
"""Characters after a phrase that can hold its number."""


def score_final_number(phrase: str, text: str, gold: str) -> dict[str, float]:
    """Return `exact_match`: whether the number of an answer is the right one, 0 or 1.

    Args:
        phrase: the final-answer phrase.
        text: the generated answer.
        gold: the right number, as it is written.
    """
    wanted = parse_number(gold)
    return {"exact_match": float(wanted is not None and final_number(text, phrase) == wanted)}


def final_number(text: str, phrase: str) -> Decimal | None:
    """Return the number of an answer; None when it has none."""
    ends = (match.end() for match in _pattern(phrase).finditer(text))
    found = (leading_number(text[end : end + _REACH]) for end in ends)
    after_phrase = next((number for number in found if number is not None), None)
    if after_phrase is not None:
        return after_phrase
    after_hashes = strict_number(text)
    if after_hashes is not None:
        return after_hashes
    *before, last = _MARK.split(text)
    after_mark = leading_number(last) if before else None
    return last_whole_number(text) if after_mark is None else after_mark


def _pattern(phrase: str) -> re.Pattern[str]:
    """Return what matches a phrase in any case, with any white space and colon; a colon may follow it."""
    words = (r"\s+".join(map(re.escape, part.split())) for part in re.split(_COLON, phrase))
    colon = rf"\s*{_COLON}\s*"
    return re.compile(rf"{colon.join(words)}(?:{colon})?", re.IGNORECASE)
