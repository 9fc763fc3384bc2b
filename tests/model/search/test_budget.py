"""Which modules a search may switch, and how many of them are on."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.runtime.faults import InputFault
from configs.runtime.seeds import draws
from model.search.budget import Budget, eligible
from model.site import SiteKey

LORA = [SiteKey(layer, role) for layer in range(3) for role in ("q_proj", "v_proj", "w1")]
SHORTCUTS = [
    SiteKey(layer, role)
    for layer in range(3)
    for role in ("residual1", "residual2", "shortcut1", "shortcut2")
    if (layer, role) != (0, "shortcut2")
]
BOTH = LORA + SHORTCUTS
MODES = ("off", "combined", "separated")


def _budget(keys=BOTH, share=0.25, mode="combined", parameters=None, size=10):
    sizes = dict.fromkeys(eligible(keys, mode), size)
    return Budget(sizes, share, mode, parameters)


@pytest.mark.parametrize("mode", MODES)
def test_shortcuts_take_part_by_the_mode(mode):
    assert eligible(BOTH[::-1], mode) == sorted(LORA if mode == "off" else BOTH)


@pytest.mark.parametrize(
    ("mode", "lora", "shortcuts"),
    [("off", 2, 0), ("combined", None, None), ("separated", 2, 3)],
)
def test_the_budget_is_kept_in_every_group(mode, lora, shortcuts):
    """floor(0.25 x 9) = 2 of LoRA, round(0.25 x 11) = 3 of the shortcuts."""
    budget = _budget(mode=mode)
    scores = {key: float(number) for number, key in enumerate(budget.sizes)}
    on = budget.choose(scores, draws(0, "ties", 0))
    if mode == "combined":
        assert on == set(sorted(scores, key=scores.get)[-5:])
        return
    assert len(on & set(LORA)) == lora
    assert len(on & set(SHORTCUTS)) == shortcuts
    for group in (LORA, SHORTCUTS):
        ranked = sorted((key for key in scores if key in group), key=scores.get)
        kept = on & set(group)
        assert kept == set(ranked[len(ranked) - len(kept) :])


def test_a_group_with_a_budget_of_none_is_off():
    """round(0.25 x 2) = 0, half to even."""
    budget = _budget([*LORA, *SHORTCUTS[:2]], mode="separated")
    budget.check()
    on = budget.choose(dict.fromkeys(budget.sizes, 1.0), draws(0, "ties", 0))
    assert len(on) == 2
    assert not on & set(SHORTCUTS)
    assert budget.description() == "2 of 9 LoRA modules, 0 of 2 shortcuts, 20 parameters active"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "off"}, "2 of 9 LoRA modules, 20 parameters active"),
        ({"mode": "combined"}, "5 of 20 LoRA modules and shortcuts, 50 parameters active"),
        ({"mode": "separated"}, "2 of 9 LoRA modules, 3 of 11 shortcuts, 50 parameters active"),
        ({"mode": "combined", "keys": LORA, "size": 600}, "2 of 9 LoRA modules, 1,200 parameters active"),
        ({"parameters": 12345}, "at most 12,345 parameters in 20 modules"),
    ],
)
def test_the_summary_names_what_is_on(changes, words):
    assert _budget(**changes).description() == words


def test_the_summary_gives_the_parameters_of_the_smallest_and_largest_choice():
    sizes = {key: 100 * (key.layer + 1) for key in LORA}
    assert Budget(sizes, 0.5, "off").description() == "4 of 9 LoRA modules, 500 to 1,100 parameters active"


@given(st.floats(0.05, 1.0), st.sampled_from(MODES), st.integers(0, 2**40), st.data())
def test_the_number_on_never_depends_on_the_scores(share, mode, seed, data):
    budget = _budget(share=share, mode=mode)
    expected = None
    try:
        budget.check()
    except InputFault:
        expected = 0
    for number in range(2):
        values = data.draw(
            st.lists(st.integers(0, 2), min_size=len(budget.sizes), max_size=len(budget.sizes))
        )
        scores = dict(zip(budget.sizes, map(float, values)))
        if expected == 0:
            with pytest.raises(InputFault):
                budget.choose(scores, draws(seed, "ties", number))
            continue
        on = budget.choose(scores, draws(seed, "ties", number))
        assert expected in (None, len(on))
        expected = len(on)


@given(st.integers(5, 60), st.lists(st.integers(0, 3), min_size=20, max_size=20), st.integers(0, 99))
def test_a_budget_of_parameters_is_filled_but_never_exceeded(parameters, values, seed):
    sizes = {key: 5 if key.role.startswith("s") else 7 for key in BOTH}
    budget = Budget(sizes, 0.25, "combined", parameters)
    budget.check()
    scores = dict(zip(sorted(sizes), map(float, values)))
    on = budget.choose(scores, draws(seed, "ties", 0))
    left = parameters - sum(sizes[key] for key in on)
    assert left >= 0
    assert all(sizes[key] > left for key in set(sizes) - on)


def test_ties_are_drawn_evenly():
    budget = _budget(LORA[:4], share=0.5, mode="off")
    drawn = [budget.choose(dict.fromkeys(LORA[:4], 1.0), draws(3, "ties", number)) for number in range(600)]
    for pair in combinations(sorted(LORA[:4]), 2):
        assert 60 < drawn.count(frozenset(pair)) < 145  # 100 expected, standard deviation 9


def test_a_budget_that_turns_nothing_on_is_refused():
    with pytest.raises(
        InputFault, match="--turn-on-percentile: a share of 0.05 of 9 modules turns none on; the smallest"
    ):
        _budget(share=0.05, mode="off").check()
    with pytest.raises(InputFault) as refusal:
        _budget(parameters=9).check()
    what = "--budget-params: 9 parameters are too few for any of the 20 modules; the smallest has 10"
    assert refusal.value.lines == (what,)
    _budget(parameters=10).check()
