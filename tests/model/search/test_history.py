"""Histories load alike in both forms, and frequencies are those of the history."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.runtime.faults import InputFault
from model.figures.heat_maps import heat_map
from model.search.allocation import rounded
from model.search.history import (
    Frequency,
    History,
    Reallocation,
    frequency,
    frequency_panel,
    frequency_text,
    history_text,
    read_either,
    read_frequency,
    read_history,
)
from model.site import LINEAR_ROLES, SHORTCUT_ROLES, SiteKey

KEYS = st.builds(SiteKey, st.integers(0, 40), st.sampled_from(LINEAR_ROLES + SHORTCUT_ROLES))
SCORES = st.dictionaries(KEYS, st.floats(allow_nan=False, allow_infinity=False), max_size=8)


@st.composite
def reallocations(draw):
    scores = {key: rounded(score) for key, score in draw(SCORES).items()}
    on = frozenset(key for key in scores if draw(st.booleans()))
    return Reallocation(draw(st.integers(0, 99)), draw(st.integers(0, 10**6)), scores, on)


HISTORIES = st.builds(
    History,
    st.lists(reallocations(), min_size=1, max_size=12).map(tuple),
    st.sampled_from([{}, {"max_alpha": 10}]),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.toml"


@given(history=HISTORIES)
def test_what_was_written_is_read_and_counts_agree(tmp_path_factory, history):
    path = tmp_path_factory.mktemp("search") / "history.toml"
    path.write_text(history_text(history))
    back = read_history(path)
    assert back == history
    assert history_text(back) == path.read_text()
    counted = frequency(history)
    assert counted.total == len(history.reallocations)
    for key, count in counted.counts.items():
        assert count == [key in one.on for one in history.reallocations].count(True)
    path.write_text(frequency_text(counted))
    assert read_either(path) == (counted, History(()))
    assert read_frequency(path) == counted


def test_the_form_is_the_documented_one():
    scores = {SiteKey(1, "q_proj"): 0.75, SiteKey(0, "v_proj"): 1.5, SiteKey(0, "residual1"): 1 / 3}
    one = Reallocation(0, 13, scores, frozenset([SiteKey(0, "v_proj")]))
    assert history_text(History((one,), {"max_alpha": 10})) == (
        "max_alpha = 10\n\n[dyrealloc_0]\nepoch = 0\nstep = 13\n"
        'turn_on = [["0", "v_proj", "1.5", "True"], ["0", "residual1", "0.333333333", "False"],'
        ' ["1", "q_proj", "0.75", "False"]]\n'
    )
    assert frequency_text(frequency(History((one, one)))) == (
        "total_reallocation_number = 2\n\n[layer_0]\nv_proj = 2\nresidual1 = 0\n\n[layer_1]\nq_proj = 0\n"
    )


def test_typed_and_string_items_load_alike(path):
    string = 'turn_on = [["0", "out_proj", "0.25", "False"], ["3", "shortcut_ffn", "1e-3", "True"]]'
    typed = 'turn_on = [[0, "out_proj", 0.25, false], [3, "shortcut_ffn", 1e-3, true]]'
    found = []
    for items in (string, typed):
        path.write_text(f"max_alpha = 10\n[dyrealloc_0]\nepoch = 1\nstep = 4\n{items}\n")
        found.append(read_history(path))
    assert found[0] == found[1]
    assert found[0].metadata == {"max_alpha": 10}
    (one,) = found[0].reallocations
    assert one.scores == {SiteKey(0, "o_proj"): 0.25, SiteKey(3, "shortcut2"): 0.001}
    assert one.on == {SiteKey(3, "shortcut2")}


def test_tables_are_taken_by_their_numbers(path):
    tables = [f'[dyrealloc_{n}]\nepoch = {n}\nstep = 0\nturn_on = [[0, "w1", 1, true]]\n' for n in (10, 2, 0)]
    path.write_text("".join(tables))
    assert [one.epoch for one in read_history(path).reallocations] == [0, 2, 10]


def test_the_share_of_lora_is_among_what_is_on():
    keys = [SiteKey(0, "q_proj"), SiteKey(0, "residual1"), SiteKey(1, "shortcut1"), SiteKey(1, "w1")]
    scores = dict.fromkeys(keys, 1.0)
    assert Reallocation(0, 0, scores, frozenset(keys[:3])).lora_share == pytest.approx(1 / 3)
    assert Reallocation(0, 0, scores, frozenset()).lora_share is None


LEAST = "must be a whole number of at least 0, got"
FORM = "must be [layer, module, score, enabled]"


@pytest.mark.parametrize(
    ("items", "line"),
    [
        ('"x"', "turn_on: must be a list of [layer, module, score, enabled]"),
        ('[["0", "w1", "1"]]', f"turn_on[0]: {FORM}"),
        ('["0", "w1", "1", "True"]', f"turn_on[0]: {FORM}"),
        ('[["0", "w1", "nan", "True"]]', "turn_on[0]: must be a finite number, got nan"),
        ('[["0", "w1", "1", "no"]]', """turn_on[0]: enabled must be "True" or "False", got 'no'"""),
        ('[["0", "w1", "1", 1]]', 'turn_on[0]: enabled must be "True" or "False", got 1'),
        ('[["-1", "w1", "1", true]]', f"turn_on[0]: {LEAST} -1"),
        ('[["0", "fc1", "1", true], [0, "w1", 1, true]]', "turn_on[1]: layer_0/w1 appears twice"),
        ("[]\nstep = -1", f"step: {LEAST} -1"),
        ('[]\nstep = "x"', f"step: {LEAST} x"),
        ("[]\n", f"step: {LEAST} None"),
    ],
)
def test_what_is_wrong_with_a_reallocation_is_named(path, items, line):
    step = "" if items.startswith("[]") else "step = 0\n"
    path.write_text(f"[dyrealloc_0]\nepoch = 0\n{step}turn_on = {items}\n")
    with pytest.raises(InputFault) as refusal:
        read_either(path)
    assert refusal.value.lines == (f"{path}: [dyrealloc_0] {line}",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1", "no table [dyrealloc_0]; this is not a history file"),
        ("total_reallocation_number = -1", f"total_reallocation_number: {LEAST} -1"),
        (
            "total_reallocation_number = 2\n[layer_0]\nq_proj = 3",
            "[layer_0] q_proj: must be a whole number in [0, 2], got 3",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_named(path, text, line):
    path.write_text(text)
    with pytest.raises(InputFault) as refusal:
        read_either(path)
    assert refusal.value.lines == (f"{path}: {line}",)


def test_a_frequency_file_is_no_history(path):
    path.write_text(frequency_text(Frequency(3, {SiteKey(0, "w1"): 2})))
    with pytest.raises(InputFault, match=r"no table \[dyrealloc_0\]; this is not a history file"):
        read_history(path)
    path.write_text("[layer_0]\nw1 = 2\n")
    with pytest.raises(InputFault, match=f"total_reallocation_number: {LEAST} None"):
        read_frequency(path)


WHOLE = (
    '[dyrealloc_0]\nepoch = 0\nstep = 3\nturn_on = [[0, "fc1", 0.25, false], ["1", "w2", "2", "True"]]\n',
    "total_reallocation_number = 2\n[layer_0]\nw1 = 2\n[layer_3]\nresidual1 = 0\n",
)


def test_damaged_files_are_read_or_refused(path):
    choose = random.Random(0)
    for number in range(400):
        content = bytearray(WHOLE[number % len(WHOLE)].encode())
        for _ in range(choose.randint(1, 3)):
            place = choose.randrange(len(content))
            content[place : place + choose.randint(0, 3)] = bytes(
                choose.choices(b'[]{}="_.,0e-\n\xff', k=choose.randint(0, 3))
            )
        path.write_bytes(content)
        with contextlib.suppress(InputFault):
            read_either(path)


def test_a_frequency_is_coloured_up_to_the_number_of_reallocations():
    first, second = SiteKey(0, "q_proj"), SiteKey(0, "w1")
    panel = frequency_panel(Frequency(7, {first: 3, second: 0}), "frequency")
    assert (panel.limits, panel.note) == ((0, 7), "7 reallocations, 2 modules, 1 never on")
    assert heat_map([panel, frequency_panel(Frequency(0, {first: 0}), "none")], "times").startswith(
        b"\x89PNG"
    )
