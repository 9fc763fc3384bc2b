"""A frequency file is made again from its history, or compared with it."""

import pytest

from model.search.history import History, Reallocation, frequency, history_text, read_frequency
from model.site import SiteKey
from tests.tools.words import refused
from tools.recompute_frequency import main

KEYS = [SiteKey(layer, role) for layer in range(2) for role in ("q_proj", "residual1")]
HISTORY = History(
    tuple(
        Reallocation(number, 0, dict.fromkeys(KEYS, 1.0 + number), frozenset(KEYS[: number + 1]))
        for number in range(3)
    )
)


@pytest.fixture
def history(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "history.toml"
    path.write_text(history_text(HISTORY))
    return path


def test_it_is_written_to_the_directory_of_the_history(history, capsys):
    assert main([str(history)]) == 0
    path = history.with_name("frequency.toml")
    assert capsys.readouterr().out == f"written: {path} (3 reallocations, 4 modules)\n"
    assert read_frequency(path) == frequency(HISTORY)
    assert [read_frequency(path).counts[key] for key in KEYS] == [3, 2, 1, 0]


def test_an_equal_file_passes_the_check_and_differences_are_named(history, capsys):
    assert main([str(history)]) == 0
    path = history.with_name("frequency.toml")
    capsys.readouterr()
    assert main([str(history), "--check", str(path)]) == 0
    assert capsys.readouterr().out == "equal: 3 reallocations, 4 modules\n"
    text = "total_reallocation_number = 4\n[layer_0]\nq_proj = 3\nresidual_1 = 1\n[layer_1]\nq_proj = 1\n"
    path.write_text(text)
    assert refused("tools.recompute_frequency", history, "--check", path) == [
        f"error: {path}: total_reallocation_number: is 4, the history has 3",
        f"error: {path}: layer_0/residual1: is 1, the history gives 2",
        f"error: {path}: layer_1/residual1: is missing, the history gives 0",
    ]


def test_metadata_is_no_reallocation(history):
    history.write_text("max_alpha = 10\n" + history.read_text())
    assert main([str(history)]) == 0
    assert read_frequency(history.with_name("frequency.toml")).total == 3


def test_nothing_is_written_over(history):
    taken = history.with_name("frequency.toml")
    taken.write_text("mine")
    assert refused("tools.recompute_frequency", history) == [
        f"error: --output: '{taken}' already exists and is not overwritten"
    ]
    assert refused("tools.recompute_frequency", history, "--check", taken, "--output", taken)[0] == (
        "error: --output: cannot be combined with --check, which writes nothing"
    )
    assert taken.read_text() == "mine"
