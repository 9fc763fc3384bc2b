"""Ranks in proportion to scores at one total of parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.runtime.faults import InputFault
from model.search.rank_distribution import distribute_ranks
from model.site import LINEAR_ROLES, SiteKey

KEYS = st.builds(SiteKey, st.integers(0, 40), st.sampled_from(LINEAR_ROLES))
SCORES = st.dictionaries(KEYS, st.sampled_from([0.0, 1.0]) | st.floats(1e-30, 1e6), min_size=1, max_size=40)


def _keys(count):
    return [SiteKey(layer, "v_proj") for layer in range(count)]


def test_ranks_are_in_proportion():
    scores = dict(zip(_keys(4), [1.0, 2.0, 3.0, 10.0]))
    assert list(distribute_ranks(scores, dict.fromkeys(scores, 64), 8, 64).values()) == [2, 4, 6, 20]


def test_what_the_largest_rank_cuts_off_goes_to_the_others():
    scores = dict(zip(_keys(4), [1.0, 2.0, 3.0, 10.0]))
    # 32 ranks less 14 for the last are 18, shared as 1 : 2 : 3.
    assert list(distribute_ranks(scores, dict.fromkeys(scores, 64), 8, 14).values()) == [3, 6, 9, 14]


def test_the_remainder_goes_where_most_is_lacking():
    scores = dict(zip(_keys(3), [1.0, 1.2, 1.8]))
    # Exact: 3, 3.6 and 5.4 of 12 ranks.
    assert list(distribute_ranks(scores, dict.fromkeys(scores, 64), 4, 64).values()) == [3, 4, 5]


def test_equal_scores_keep_the_rank_whatever_a_module_costs():
    for score in (0.0, 1.0, -3.0):
        scores = dict.fromkeys(_keys(5), score)
        costs = dict(zip(scores, [64, 64, 80, 128, 3]))
        assert set(distribute_ranks(scores, costs, 8, 32).values()) == {8}


@given(SCORES, st.integers(1, 16), st.integers(0, 48), st.data())
def test_the_total_is_spent_and_never_exceeded(scores, rank, more, data):
    costs = {key: data.draw(st.integers(1, 300)) for key in scores}
    ranks = distribute_ranks(scores, costs, rank, rank + more)
    assert list(ranks) == sorted(scores)
    assert all(1 <= one <= rank + more for one in ranks.values())
    left = rank * sum(costs.values()) - sum(costs[key] * ranks[key] for key in ranks)
    assert left >= 0
    assert all(costs[key] > left for key in ranks if ranks[key] < rank + more)
    assert distribute_ranks(dict(reversed(scores.items())), costs, rank, rank + more) == ranks


@given(SCORES, st.integers(1, 16), st.integers(0, 48))
def test_with_equal_costs_the_total_is_met_and_ranks_follow_the_scores(scores, rank, more):
    ranks = distribute_ranks(scores, dict.fromkeys(scores, 64), rank, rank + more)
    assert sum(ranks.values()) == rank * len(scores)
    by_score = sorted(scores, key=scores.get)
    for low, high in zip(by_score, by_score[1:]):
        assert ranks[low] <= ranks[high] + 1


def test_a_maximum_below_the_rank_is_refused():
    with pytest.raises(InputFault, match=r"^--max-rank: must be at least --rank, 8, got 4$"):
        distribute_ranks(dict.fromkeys(_keys(2), 1.0), dict.fromkeys(_keys(2), 64), 8, 4)
