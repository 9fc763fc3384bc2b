"""JSON is read strictly, and what is wrong is told in one line."""

import pytest

from dataset.rows.json_values import json_value, json_value_at
from dataset.task import RowFault


def test_values_are_read_alone_or_from_a_place():
    assert json_value(' {"a": [1, "é"]}\n') == {"a": [1, "é"]}
    assert json_value_at("[1] 2", 4) == (2, 5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "invalid JSON: .* at character"),
        ("1 2", "invalid JSON: Extra data at character 3"),
        ('{"a": {"b": 1, "b": 2}}', "key 'b' appears twice"),
        ("[Infinity]", "invalid JSON: Infinity is not a JSON number"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 5000, "invalid JSON"),
    ],
)
def test_what_is_wrong_is_reported(text, reason):
    with pytest.raises(RowFault, match=reason):
        json_value(text)
