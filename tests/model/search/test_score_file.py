"""Score files are read as they were written, and those of the earlier implementation as they are."""

import contextlib
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.runtime.faults import InputFault, NonFiniteFault
from model.search.allocation import rounded
from model.search.score_file import Scores, read_scores, score_panel, score_text, write_scores
from model.site import LINEAR_ROLES, SHORTCUT_ROLES, SiteKey

KEYS = st.builds(SiteKey, st.integers(0, 99), st.sampled_from(LINEAR_ROLES + SHORTCUT_ROLES))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.toml"


@given(values=st.dictionaries(KEYS, FINITE, min_size=1))
def test_what_was_written_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("scores") / "scores_snip.toml"
    metadata = {"method": "snip", "seed": 3, "limit_test_num": 0.5, "zero-proxy_metric": 0.1 + 0.2}
    widths = {"q_proj": (64, 32), "residual1": (64, 64)}
    write_scores(path, Scores(values, metadata, widths))
    back = read_scores(path)
    assert back == Scores({key: rounded(value) for key, value in values.items()}, metadata, widths)
    assert list(back.values) == sorted(values)
    assert score_text(back) == path.read_text()


def test_the_text_depends_on_no_order_of_modules_and_has_nine_digits():
    keys = [SiteKey(10, "w2"), SiteKey(2, "residual1"), SiteKey(2, "q_proj")]
    values = dict(zip(keys, [1 / 3, 1.8004347377653494e-21, -0.0]))
    text = score_text(Scores(values, {"method": "synflow"}))
    assert text == score_text(Scores(dict(reversed(values.items())), {"method": "synflow"}))
    assert text.splitlines() == [
        'method = "synflow"',
        "",
        "[layer_2]",
        "q_proj = 0.0",
        "residual1 = 1.80043474e-21",
        "",
        "[layer_10]",
        "w2 = 0.333333333",
    ]


def test_a_file_before_its_first_module_holds_metadata_alone():
    assert score_text(Scores({}, {"method": "alpha_test"})) == 'method = "alpha_test"\n'


def test_names_of_the_earlier_implementation_are_read(path):
    path.write_text(
        "limit_test_num = 8\n"
        "[layer_0]\nout_proj = 1\nfc1 = 2.5\nfc2 = 3e-40\nresidual_1 = 0.5\nshortcut_sa = 4\n"
        "[layer_3]\nup_proj = 5\ngate_proj = 6\ndown_proj = 7\no_proj = 8\nshortcut_ffn = 9\n"
    )
    scores = read_scores(path)
    assert scores.metadata == {"limit_test_num": 8}
    assert {str(key): value for key, value in scores.values.items()} == {
        "layer_0/o_proj": 1.0,
        "layer_0/w1": 2.5,
        "layer_0/w2": 3e-40,
        "layer_0/residual1": 0.5,
        "layer_0/shortcut1": 4.0,
        "layer_3/o_proj": 8.0,
        "layer_3/w1": 5.0,
        "layer_3/gate": 6.0,
        "layer_3/w2": 7.0,
        "layer_3/shortcut2": 9.0,
    }
    assert all(type(value) is float for value in scores.values.values())


def test_every_fault_of_a_file_is_reported(path):
    path.write_text(
        'widths = [["q_proj", 4]]\n'
        '[layer_0]\nqproj = 1.0\nv_proj = "1"\nk_proj = nan\nfc1 = 1\nw1 = 2\n'
        "[layer_x]\nq_proj = 1.0"
    )
    with pytest.raises(InputFault) as refusal:
        read_scores(path)
    lines = [line.removeprefix(f"{path}: ") for line in refusal.value.lines]
    assert lines[0].startswith("[layer_0] qproj: no module 'qproj', one of ")
    assert lines[0].endswith("; did you mean 'q_proj'?")
    assert lines[1:] == [
        '[layer_0] v_proj: must be a finite number, got "1"',
        "[layer_0] k_proj: must be a finite number, got nan",
        "[layer_0] w1: is given twice, under two names of w1",
        "layer_x: must be a table [layer_i], i the number of a layer",
        "widths: must be a list of [role, D_in, D_out]",
    ]


def test_what_is_no_score_file_is_refused(path):
    path.write_text("[default]\nr = 0\n")
    with pytest.raises(
        InputFault, match=r"no table \[layer_0\] or of another layer; this is not a score file"
    ):
        read_scores(path)
    with pytest.raises(InputFault, match=r"^SCORES: cannot read '.*gone.toml'"):
        read_scores(path.with_name("gone.toml"), "SCORES")


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_is_not_written(path, bad):
    with pytest.raises(NonFiniteFault, match=f"layer_1/w2 has {bad}"):
        write_scores(path, Scores({SiteKey(1, "w2"): bad}))
    assert not path.exists()


def test_costs_need_every_width():
    values = {SiteKey(0, "q_proj"): 1.0, SiteKey(1, "w1"): 2.0}
    assert Scores(values, widths={"q_proj": (8, 4)}).costs() is None
    costs = Scores(values, widths={"q_proj": (8, 4), "w1": (8, 32)}).costs()
    assert list(costs.values()) == [12, 40]


WHOLE = """method = "snip"
widths = [["q_proj", 64, 32]]
[layer_0]
q_proj = 0.25
out_proj = 3
[layer_11]
residual_1 = 1e-30
"""


def test_damaged_files_are_read_or_refused(path):
    choose = random.Random(0)
    for _ in range(400):
        content = bytearray(WHOLE.encode())
        for _ in range(choose.randint(1, 3)):
            place = choose.randrange(len(content))
            content[place : place + choose.randint(0, 3)] = bytes(
                choose.choices(b'[]{}="_.,0e-\n\xff', k=choose.randint(0, 3))
            )
        path.write_bytes(content)
        with contextlib.suppress(InputFault):
            read_scores(path)


def test_a_score_file_records_its_method_zeros_and_ties():
    keys = [SiteKey(0, role) for role in LINEAR_ROLES]
    values = dict(zip(keys, [0.0, -0.0, 1.0, 1.0 + 1e-12, 2.0]))
    panel = score_panel(Scores(values, {"method": "snip", "dataset": "sst2"}), "scores_snip")
    assert (panel.title, panel.note) == ("snip on sst2", "5 modules, 2 zero, 2 tied")
    assert score_panel(Scores({keys[0]: 1.0}), "grad-norm_b8").title == "grad-norm_b8"
    assert score_panel(Scores({keys[0]: 1.0}), "grad-norm_b8").note == "1 modules"
