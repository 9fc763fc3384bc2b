"""The number of an answer: after the phrase, the hashes or the last mark, or the last whole number."""

import pytest

from dataset.suites.final_answers import score_final_number

PHRASES = {"es": "La respuesta es:", "ru": "Ответ:", "zh": "答案是："}
ANSWERS = [
    # the phrase
    ("es", "Son 2 * 9 = 17.\n#### 17\nLa respuesta es: 18", "18", 1),
    ("es", "por lo tanto, la respuesta es : $18.", "18", 1),
    ("es", "La respuesta\nes: **-18**", "-18", 1),
    ("es", "La respuesta es: 18\nLa respuesta es: 17", "18", 1),
    ("es", "La respuesta es: x\nLa respuesta es: 18", "18", 1),
    ("es", "La respuesta es: 18.5", "18", 0),
    ("es", "La respuesta es: 18.50", "18.5", 1),
    ("es", "La respuesta es: 2,125", "2125", 1),
    ("es", "La respuesta es: -18", "18", 0),
    ("es", "La respuesta es: \u221218", "-18", 1),
    ("es", "La respuesta es: $\\boxed{18}$.", "18", 1),
    ("es", "La respuesta es: \\$18", "18", 1),
    ("es", "La respuesta es 18, no 17", "17", 1),  # without the colon it is no phrase
    ("ru", "Ответ: 18 рублей, а не 17", "18", 1),
    ("ru", "ответ\uff1a18", "18", 1),
    ("ru", "Ответ: 18<\\text>", "18", 1),
    ("zh", "答案是：18。", "18", 1),
    ("zh", "由于答案是1，所以 x = 2\n答案是: 18", "18", 1),
    ("zh", "答案是：1,000,000", "1000000", 1),
    # the hashes
    ("es", "Son 9 + 9 = 17\n#### 18\ny luego 3", "18", 1),
    ("es", "#### 18\nLa respuesta es: $\\frac{1}{2}$", "18", 1),
    ("zh", "#### -$1,800.", "-1800", 1),
    # the last mark
    ("es", "9 + 9 = <<9+9=18>>18 huevos de 20", "18", 1),
    ("es", "9 + 9 = <<9+9=17>>17, o sea x = 18 de 20", "18", 1),
    ("es", "x = 17 y >>18 de 20", "18", 1),
    ("es", "=18 de 20", "18", 1),
    ("es", "x = -$18.50 de 20", "-18.5", 1),
    ("es", "x = $\\boxed{18}$ de 20", "18", 1),
    # the last whole number
    ("es", "x = y, 17 o 18", "18", 1),
    ("es", "son -18 en 2.5 horas", "-18", 1),
    ("zh", "一共18个。", "18", 1),
    # no number
    ("es", "La respuesta es: ninguna", "18", 0),
    ("es", "", "18", 0),
    ("es", "La respuesta es: ", "", 0),
    ("es", "La respuesta es: 18", "", 0),
]


@pytest.mark.parametrize(("language", "text", "gold", "score"), ANSWERS)
def test_scores(language, text, gold, score):
    assert score_final_number(PHRASES[language], text, gold) == {"exact_match": float(score)}


def test_a_phrase_without_colon_takes_one():
    for text in ("answer is 18 of 17", "The answer is: 18 of 17", "ANSWER  IS\n18 of 17"):
        assert score_final_number("answer is", text, "18") == {"exact_match": 1.0}


def test_signs_of_patterns_in_a_phrase_are_text():
    assert score_final_number("(a+b)?", "(a+b)? 18 17", "18") == {"exact_match": 1.0}
    assert score_final_number("(a+b)?", "aab 18 17", "18") == {"exact_match": 0.0}


def test_long_answers_are_read_in_linear_time():
    assert score_final_number("La respuesta es:", "La respuesta es: " * 20_000, "18") == {"exact_match": 0.0}
    assert score_final_number("La respuesta es:", "= " + "$ *" * 100_000, "18") == {"exact_match": 0.0}
