"""Histories and frequency files become pictures."""

import pytest

from model.search.history import History, Reallocation, frequency, frequency_text, history_text
from model.site import SiteKey
from tests.tools.words import refused
from tools.plot_reallocation import lora_fraction, lora_shares, main

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


def test_a_history_gives_a_map_and_a_trend(history, tmp_path, capsys):
    assert main([str(history)]) == 0
    pictures = [tmp_path / "frequency.png", tmp_path / "lora_share.png"]
    assert capsys.readouterr().out == "".join(f"written: {path}\n" for path in pictures)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_a_frequency_file_gives_the_map_of_its_history(history, tmp_path):
    counted = tmp_path / "f" / "history.toml"
    counted.parent.mkdir()
    counted.write_text(frequency_text(frequency(HISTORY)))
    assert main([str(counted), "--output", str(tmp_path / "a.png")]) == 0
    assert main([str(history), "--output", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert main([str(history), str(counted), "--output", str(tmp_path / "f" / "both.png")]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == [
        "a.png", "b.png", "both.png", "lora_share.png", "lora_share.png"
    ]  # fmt: skip


def test_the_trend_is_the_share_among_what_is_on():
    assert lora_shares(HISTORY) == [1.0, 0.5, pytest.approx(2 / 3)]
    assert lora_fraction(HISTORY) == 0.5


def test_all_faults_are_reported_together(history, tmp_path):
    counted = tmp_path / "counted.toml"
    counted.write_text(frequency_text(frequency(HISTORY)))
    assert refused("tools.plot_reallocation", counted, "--trend-output", tmp_path / "t.png") == [
        "error: --trend-output: frequency files contain no trend; give a history file"
    ]
    (tmp_path / "lora_share.png").write_bytes(b"mine")
    (tmp_path / "bad.toml").write_text("")
    words = [history, tmp_path / "bad.toml", "--output", tmp_path / "f.png"]
    assert refused("tools.plot_reallocation", *words) == [
        f"error: {tmp_path / 'bad.toml'}: no table [dyrealloc_0]; this is not a history file",
        f"error: --trend-output: '{tmp_path / 'lora_share.png'}' already exists and is not overwritten",
    ]
