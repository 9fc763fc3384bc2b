"""Choosing modules by scores, once and while training, against golden cases."""

import json

import pytest

from configs.runtime.seeds import draws
from model.search.allocation import allocate, ranked_groups, rounded
from model.search.score_file import read_scores
from model.site import SiteKey, role_named
from tests.support.golden import case_paths, cases

pytestmark = pytest.mark.golden


def _keys(rows):
    """Return the sites of rows that hold a layer and a name, whatever precedes them."""
    return {SiteKey(row[-2], role_named(row[-1])) for row in rows}


def _check_choice(kept, expected):
    on, tied = _keys(expected["on"]), _keys(expected["tied"])
    assert len(kept) == expected["budget"]
    assert on <= kept <= on | tied


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("path", cases("realloc_static_*.json"))
def test_realloc_static(path, seed):
    expected = json.loads(path.read_text())
    scores = read_scores(path.parent / expected["importance"]).values
    assert len(scores) == expected["n_modules"]
    decided = allocate(scores, expected["turn_on_percentile"], "off", draws(seed, "ties"))
    kept = {key for key, is_on in decided.items() if is_on}
    _check_choice(kept, expected)
    if expected["budget"] < len(scores):
        assert min(rounded(scores[key]) for key in kept) == rounded(expected["threshold"])


def _dynamic_cases():
    paths = case_paths("realloc_dynamic*.json")
    found = [(path.stem, case) for path in paths for case in json.loads(path.read_text())["cases"]]
    return [pytest.param(case, id=f"{stem}-{case['id']}") for stem, case in found]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", _dynamic_cases())
def test_realloc_dynamic(case, seed):
    scores = {
        SiteKey(layer, role_named(name)): score
        for rows in case["scores"].values()
        for layer, name, score in rows
    }
    share, mode = case["turn_on_percentile"], case["mode"]
    budgets = [expected["budget"] for expected in case["expected"].values()]
    assert sum(budget for _, budget in ranked_groups(scores, share, mode)) == sum(budgets)
    decided = allocate(scores, share, mode, draws(seed, "ties"))
    kept = {key for key, is_on in decided.items() if is_on}
    for group, expected in case["expected"].items():
        members = kept if group == "combined" else _keys(row[:2] for row in case["scores"][group])
        _check_choice(kept & members, expected)
