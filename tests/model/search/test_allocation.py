"""Budgets, rankings and ties."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.runtime.faults import InputFault, NonFiniteFault
from configs.runtime.seeds import draws
from model.search.allocation import (
    allocate,
    lora_budget,
    ranked_groups,
    rounded,
    select_top,
    select_within_budget,
    shortcut_budget,
    smallest_share,
    ties_at_cutoff,
)
from model.site import LINEAR_ROLES, SHORTCUT_ROLES, SiteKey, is_shortcut

KEYS = st.builds(SiteKey, st.integers(0, 40), st.sampled_from(LINEAR_ROLES + SHORTCUT_ROLES))
SCORES = st.dictionaries(KEYS, st.sampled_from([0.0, 0.25, 1.0, 1e-30]) | st.floats(0, 1e6), min_size=1)
PERCENT = st.integers(1, 100)
MODES = st.sampled_from(["off", "combined", "separated"])


def _lora(count, score=1.0):
    return {SiteKey(layer, "q_proj"): score for layer in range(count)}


@given(PERCENT, st.integers(1, 2000))
def test_a_share_is_the_decimal_number_that_was_written(percent, count):
    exact = Fraction(percent, 100) * count
    assert lora_budget(percent / 100, count) == exact.__floor__()
    assert shortcut_budget(percent / 100, count) == round(exact)  # Fraction, too, rounds halves to even


@pytest.mark.parametrize(("count", "on"), [(18, 4), (42, 10), (22, 6), (30, 8)])
def test_half_shortcuts_are_rounded_to_even(count, on):
    assert shortcut_budget(0.25, count) == on


@given(SCORES, PERCENT, MODES, st.integers(0, 99))
def test_the_number_that_is_on_is_the_budget(scores, percent, mode, seed):
    share = percent / 100
    lora = [key for key in scores if not is_shortcut(key)]
    shortcuts = [key for key in scores if is_shortcut(key)] if mode != "off" else []
    budgets = lora_budget(share, len(lora)), shortcut_budget(share, len(shortcuts))
    if sum(budgets) == 0:
        with pytest.raises(InputFault):
            allocate(scores, share, mode, draws(seed))
        return
    decided = allocate(scores, share, mode, draws(seed))
    assert set(decided) == {*lora, *shortcuts}
    assert sum(decided.values()) == sum(budgets)
    if mode == "separated":
        assert tuple(sum(decided[key] for key in group) for group in (lora, shortcuts)) == budgets
    for group in [lora, shortcuts] if mode != "combined" else [[*lora, *shortcuts]]:
        on = [rounded(scores[key]) for key in group if decided[key]]
        off = [rounded(scores[key]) for key in group if not decided[key]]
        assert not on or not off or min(on) >= max(off)


@given(SCORES, PERCENT, MODES, st.randoms(use_true_random=False))
def test_the_order_of_modules_does_not_matter(scores, percent, mode, order):
    items = list(scores.items())
    order.shuffle(items)
    outcomes = []
    for given_scores in (scores, dict(items)):
        try:
            outcomes.append(list(allocate(given_scores, percent / 100, mode, draws(3)).items()))
        except InputFault as fault:
            outcomes.append(fault.lines)
    assert outcomes[0] == outcomes[1]


def test_ties_are_drawn_uniformly():
    scores = _lora(5) | {SiteKey(9, "w1"): 2.0, SiteKey(9, "w2"): 0.5}
    pairs, trials = {}, 4000
    for seed in range(trials):
        kept = select_top(scores, 3, draws(seed, "ties"))
        assert SiteKey(9, "w1") in kept
        assert SiteKey(9, "w2") not in kept
        tied = tuple(sorted(key.layer for key in kept if key.role == "q_proj"))
        pairs[tied] = pairs.get(tied, 0) + 1
    assert len(pairs) == math.comb(5, 2)
    # Ten pairs, 400 expected of each: chi square with 9 degrees of freedom exceeds 27.9 once in 1000.
    assert sum((count - 400) ** 2 / 400 for count in pairs.values()) < 27.9


def test_a_seed_gives_one_choice_and_other_purposes_another():
    scores = _lora(40)
    first = select_top(scores, 20, draws(0, "ties", 0))
    assert select_top(scores, 20, draws(0, "ties", 0)) == first
    assert select_top(scores, 20, draws(0, "ties", 1)) != first
    assert select_top(scores, 20, draws(1, "ties", 0)) != first


def test_scores_that_differ_beyond_nine_digits_tie():
    near = {SiteKey(0, "q_proj"): 1.0 + 1e-12, SiteKey(1, "q_proj"): 1.0}
    assert len({select_top(near, 1, draws(seed)) for seed in range(20)}) == 2
    apart = {SiteKey(0, "q_proj"): 1.0 + 1e-7, SiteKey(1, "q_proj"): 1.0}
    assert {select_top(apart, 1, draws(seed)) for seed in range(20)} == {frozenset([SiteKey(0, "q_proj")])}
    assert rounded(1.234567890123e-28) == 1.23456789e-28
    assert math.copysign(1, rounded(-0.0)) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused_wherever_it_ranks(bad):
    scores = _lora(4) | {SiteKey(2, "v_proj"): bad}
    with pytest.raises(NonFiniteFault, match=f"layer_2/v_proj has {bad}"):
        allocate(scores, 0.25, "off", draws(0))
    with pytest.raises(NonFiniteFault, match="layer_2/v_proj"):
        select_within_budget(scores, dict.fromkeys(scores, 1), 2, draws(0))


def test_a_budget_of_nothing_is_refused_and_the_smallest_share_named():
    with pytest.raises(InputFault) as refusal:
        ranked_groups(_lora(48), 0.02, "off")
    assert refusal.value.lines == (
        "--turn-on-percentile: a share of 0.02 of 48 modules turns none on;"
        " the smallest that turns one on is 0.02084",
    )
    shortcuts = {SiteKey(layer, "residual1"): 1.0 for layer in range(3)}
    with pytest.raises(
        InputFault, match=r"^--percentile: a share of 0.1 of 4 .* and 3 shortcuts .* is 0.1667$"
    ):
        ranked_groups(_lora(4) | shortcuts, 0.1, "combined", "--percentile")
    with pytest.raises(InputFault, match="there are no modules to turn on"):
        ranked_groups(shortcuts, 0.5, "off")


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_smallest_share_turns_one_on_and_less_does_not(lora, shortcuts):
    least = smallest_share(lora, shortcuts)
    if lora + shortcuts == 0:
        assert least is None
        return
    assert 0 < least <= 1
    assert lora_budget(least, lora) + shortcut_budget(least, shortcuts) >= 1
    less = least * (1 - 2e-3)
    assert lora_budget(less, lora) + shortcut_budget(less, shortcuts) == 0


def test_separated_turns_a_group_without_budget_off():
    shortcuts = {SiteKey(0, "residual1"): 9.0, SiteKey(0, "residual2"): 9.0}
    decided = allocate(_lora(4) | shortcuts, 0.25, "separated", draws(0))
    assert sum(decided.values()) == 1
    assert not any(decided[key] for key in shortcuts)
    decided = allocate(_lora(3) | shortcuts, 0.3, "separated", draws(0))
    assert [key for key in decided if decided[key]] in ([SiteKey(0, "residual1")], [SiteKey(0, "residual2")])


@settings(max_examples=200)
@given(SCORES, st.data(), st.integers(0, 9))
def test_a_budget_of_parameters_is_never_exceeded_and_leaves_nothing_that_fits(scores, data, seed):
    sizes = {key: data.draw(st.integers(1, 50)) for key in scores}
    budget = data.draw(st.integers(0, sum(sizes.values())))
    if budget < min(sizes.values()):
        with pytest.raises(InputFault, match=f"the smallest has {min(sizes.values())}"):
            select_within_budget(scores, sizes, budget, draws(seed))
        return
    kept = select_within_budget(scores, sizes, budget, draws(seed))
    left = budget - sum(sizes[key] for key in kept)
    assert left >= 0
    for key in set(scores) - kept:
        assert sizes[key] > left
        # What is off did not fit the budget next to the kept modules that come before it.
        before = sum(sizes[one] for one in kept if rounded(scores[one]) >= rounded(scores[key]))
        assert before + sizes[key] > budget


def test_with_equal_sizes_parameters_are_a_count():
    scores = {SiteKey(layer, "q_proj"): float(layer % 7) for layer in range(20)}
    sizes = dict.fromkeys(scores, 10)
    assert select_within_budget(scores, sizes, 69, draws(4)) == select_top(scores, 6, draws(4))


def test_ties_at_the_cutoff_are_counted_only_if_some_were_drawn():
    scores = _lora(4) | {SiteKey(9, "w1"): 2.0, SiteKey(9, "w2"): 0.5}
    for budget, told in ((1, (0, 0)), (2, (4, 1)), (4, (4, 3)), (5, (0, 0)), (6, (0, 0))):
        assert ties_at_cutoff(scores, select_top(scores, budget, draws(0))) == told
