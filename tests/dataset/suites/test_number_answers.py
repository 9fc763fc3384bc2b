"""The number of an answer, strictly after the hashes or as the last one."""

import pytest

from dataset.suites.number_answers import score_number


@pytest.mark.parametrize(
    ("text", "gold", "strict", "flexible"),
    [
        ("so 7\n#### 18", "18", 1, 1),
        ("#### 1,234", "1234", 1, 1),
        ("#### $18.", "18", 1, 1),
        ("#### 18.00", "18", 1, 1),
        ("#### -5", "-5", 1, 1),
        ("####18", "18", 1, 1),
        ("the answer is 18.", "18", 0, 1),
        ("#### 18\nQuestion: 4 + 4", "18", 1, 0),
        ("#### 17\n#### 18", "18", 0, 1),
        ("#### 18.0005", "18", 0, 1),
        ("#### 18.01", "18", 0, 0),
        ("#### 1.2.3", "1.2", 0, 0),
        ("####", "18", 0, 0),
        ("", "18", 0, 0),
        ("#### ١٨", "18", 0, 0),
        ("18", "", 0, 0),
        ("#### 2,125", "2,125", 1, 1),
    ],
)
def test_scores(text, gold, strict, flexible):
    assert score_number(text, gold) == {"exact_match": float(strict), "exact_match_flexible": float(flexible)}
