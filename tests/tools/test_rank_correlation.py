"""Rankings are compared by their ranks, and tops by what they share."""

import json
import random

import pytest

from model.search.score_file import Scores, write_scores
from model.site import SiteKey
from tests.tools.words import refused
from tools.rank_correlation import main, top

KEYS = [SiteKey(layer, role) for layer in range(6) for role in ("q_proj", "v_proj")]


@pytest.fixture
def write(tmp_path):
    def make(name, values, keys=KEYS):
        write_scores(tmp_path / name, Scores(dict(zip(keys, values))))
        return str(tmp_path / name)

    return make


def _found(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _ranks(values):
    """Return ranks from 1; equal values share the mean of theirs."""
    return [
        sum(other < value for other in values) + (1 + sum(other == value for other in values)) / 2
        for value in values
    ]


def test_spearman_is_the_correlation_of_ranks_that_ties_share(write, capsys):
    choose = random.Random(0)
    a, b = ([float(choose.randint(0, 5)) for _ in KEYS] for _ in range(2))
    x, y = _ranks(a), _ranks(b)
    mean = (len(KEYS) + 1) / 2
    covariance = sum((p - mean) * (q - mean) for p, q in zip(x, y))
    spread = [sum((p - mean) ** 2 for p in ranks) for ranks in (x, y)]
    found = _found(capsys, write("a.toml", a), write("b.toml", b))
    assert found["spearman"] == pytest.approx(covariance / (spread[0] * spread[1]) ** 0.5)
    assert 0 < found["p_value"] <= 1


def test_the_top_and_its_overlap(write, capsys):
    a = write("a.toml", range(12))
    b = write("b.toml", [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 10, 9])
    reverse = write("c.toml", reversed(range(12)))
    assert _found(capsys, a, b)["overlap"] == 1.0
    assert _found(capsys, a, b, "--share", "0.1")["overlap"] == 0.0
    found = _found(capsys, a, reverse, "--share", "0.75")
    assert (found["top"], found["overlap"], found["spearman"]) == (
        9,
        pytest.approx(6 / 9),
        pytest.approx(-1.0),
    )
    assert top(dict.fromkeys(KEYS, 1.0), set(KEYS), 2) == set(KEYS[:2])


def test_modules_of_one_file_alone_are_counted_and_left_out(write, capsys):
    a = write("a.toml", range(12))
    b = write("b.toml", range(6), KEYS[:5] + [SiteKey(9, "w2")])
    found = _found(capsys, a, b)
    assert (found["modules"], found["only_a"], found["only_b"], found["spearman"]) == (
        5,
        7,
        1,
        pytest.approx(1.0),
    )
    assert main([a, b]) == 0
    assert "only in A, only in B  7, 1" in capsys.readouterr().out


def test_equal_scores_have_no_correlation(write, capsys):
    a, flat = write("a.toml", range(12)), write("flat.toml", [1.0] * 12)
    found = _found(capsys, a, flat)
    assert (found["spearman"], found["p_value"]) == (None, None)
    assert main([a, flat]) == 0
    assert "none: all scores of one file are equal" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(write, tmp_path):
    a, b = write("a.toml", range(12)), write("b.toml", range(2))
    assert refused("tools.rank_correlation", a, b) == [
        "error: B: shares 2 modules with A; a correlation needs at least 3"
    ]
    assert refused("tools.rank_correlation", a, a, "--share", 0.01) == [
        "error: --share: 0.01 of 12 modules is less than one module"
    ]
    assert refused("tools.rank_correlation", a, tmp_path / "gone.toml") == [
        f"error: B: cannot read '{tmp_path / 'gone.toml'}': No such file or directory"
    ]
