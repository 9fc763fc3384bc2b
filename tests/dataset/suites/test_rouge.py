"""ROUGE is the formula, written out here: common n-grams, common subsequence, F of both shares."""

import random
import re
from fractions import Fraction
from itertools import combinations

import pytest

from dataset.suites.rouge import score_rouge

WORDS = ("the", "bill", "funds", "3", "schools")
RANDOM = random.Random(0)
PAIRS = [tuple(" ".join(RANDOM.choices(WORDS, k=RANDOM.randint(1, 8))) for _ in range(2)) for _ in range(60)]


def words(text):
    return re.findall("[a-z0-9]+", text.lower())


def grams(text, n):
    found = words(text)
    return [tuple(found[at : at + n]) for at in range(len(found) - n + 1)]


def overlap(first, second):
    """Take every gram of one out of the other, once."""
    rest = list(second)
    hits = 0
    for gram in first:
        if gram in rest:
            rest.remove(gram)
            hits += 1
    return hits


def longest_common(first, second):
    """Look for every subsequence of the one in the other, the longest first."""
    for length in range(len(first), 0, -1):
        for chosen in combinations(first, length):
            left = iter(second)
            if all(word in left for word in chosen):
                return length
    return 0


def f_measure(hits, candidate, gold):
    if hits == 0:
        return 0.0
    precision, recall = Fraction(hits, candidate), Fraction(hits, gold)
    return float(2 * precision * recall / (precision + recall))


def expected(text, gold):
    found = {
        f"rouge{n}": f_measure(
            overlap(grams(text, n), grams(gold, n)), len(grams(text, n)), len(grams(gold, n))
        )
        for n in (1, 2)
    }
    first, second = words(text), words(gold)
    return found | {"rougeL": f_measure(longest_common(first, second), len(first), len(second))}


@pytest.mark.parametrize(("text", "gold"), PAIRS)
def test_scores_are_the_formula(text, gold):
    assert score_rouge(text, gold) == pytest.approx(expected(text, gold), abs=1e-6)


def test_pairs_tell_the_scores_apart():
    found = [expected(*pair) for pair in PAIRS]
    assert sum(len(set(scores.values())) == 3 for scores in found) >= 10
    assert any(scores["rougeL"] < scores["rouge1"] for scores in found)


@pytest.mark.parametrize(
    ("text", "gold", "scores"),
    [
        ("The Bill, funds!", "the bill funds", (1, 1, 1)),
        ("schools schools", "school", (0, 0, 0)),
        ("a", "a", (1, 0, 1)),
        ("c b a", "a b c", (1, 0, 1 / 3)),
        ("a a a a", "a", (0.4, 0, 0.4)),
        ("", "a b", (0, 0, 0)),
        ("a b", "", (0, 0, 0)),
        ("größe", "größe", (1, 1, 1)),
        ("概要", "概要", (0, 0, 0)),
    ],
)
def test_words_are_lower_case_letters_and_digits_without_a_stemmer(text, gold, scores):
    assert tuple(score_rouge(text, gold).values()) == pytest.approx(scores)
    assert tuple(score_rouge(text, gold)) == ("rouge1", "rouge2", "rougeL")
