"""Heat maps are whole pictures, alike for alike numbers, of any set of modules."""

from pathlib import Path

import pytest
from matplotlib import pyplot
from PIL import Image

from model.figures import heat_maps
from model.figures.heat_maps import Panel, distinct_titles, heat_map
from model.site import LINEAR_ROLES, SHORTCUT_ROLES, SiteKey

ALL = [SiteKey(layer, role) for layer in range(10) for role in LINEAR_ROLES + SHORTCUT_ROLES]


def _texts(monkeypatch, *arguments, **named):
    """Return every text of the picture, and every colour bar's scale."""
    texts, scales = [], []

    def look(figure, *rest, **words):
        for axes in figure.axes:
            texts.extend(text.get_text() for text in axes.texts)
            texts.extend(label.get_text() for label in axes.get_xticklabels())
        scales.extend(axes.get_yscale() for axes in figure.axes if axes.get_label() == "<colorbar>")
        return save(figure, *rest, **words)

    save = pyplot.Figure.savefig
    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    heat_map(*arguments, **named)
    return texts, scales


def test_equal_maps_are_equal_bytes_and_nothing_stays_open(tmp_path):
    panels = [Panel("a", {key: float(key.layer) for key in ALL}), Panel("b", {SiteKey(2, "w1"): 1.0}, "note")]
    content = heat_map(panels, "score")
    assert content == heat_map(panels, "score")
    assert content.startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    (tmp_path / "map.png").write_bytes(content)
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.width > picture.height / 3
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_every_cell_shows_zero_value_or_nothing(monkeypatch):
    values = {SiteKey(0, "q_proj"): 0.0, SiteKey(1, "q_proj"): 0.28163, SiteKey(1, "residual1"): 2e-28}
    texts, scales = _texts(monkeypatch, [Panel("a", values)], "score")
    assert {"0", "0.282", "2e-28", "·"} <= set(texts)
    assert texts.count("·") == 1
    assert {"q_proj", "residual1"} <= set(texts)
    assert scales == ["log"]


def test_many_cells_hold_no_numbers(monkeypatch):
    texts, scales = _texts(monkeypatch, [Panel("a", {key: 1.5 + key.layer for key in ALL})], "score")
    assert not {"1.5", "2.5", "·"} & set(texts)
    assert scales == ["linear"]


@pytest.mark.parametrize(("scale", "kind"), [("auto", "log"), ("linear", "linear"), ("log", "log")])
def test_three_decades_are_logarithmic_by_default(monkeypatch, scale, kind):
    values = {SiteKey(0, "q_proj"): 1e-3, SiteKey(0, "v_proj"): 1.0}
    assert _texts(monkeypatch, [Panel("a", values)], "score", scale)[1] == [kind]
    near = {SiteKey(0, "q_proj"): 2e-3, SiteKey(0, "v_proj"): 1.0}
    assert _texts(monkeypatch, [Panel("a", near)], "score", "auto")[1] == ["linear"]


def test_common_limits_share_one_colour_bar(monkeypatch):
    panels = [Panel("a", {SiteKey(0, "q_proj"): 3}), Panel("b", {SiteKey(0, "q_proj"): 0})]
    assert len(_texts(monkeypatch, panels, "times on")[1]) == 2
    texts, scales = _texts(monkeypatch, panels, "times on", limits=(0, 20))
    assert scales == ["linear"]
    assert {"3", "0"} <= set(texts)


def test_colour_bars_of_counts_have_whole_ticks_and_those_of_shares_have_not(monkeypatch):
    ticks = []

    def look(figure, *rest, **words):
        bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
        ticks.append([float(tick) for axes in bars for tick in axes.get_yticks()])
        return save(figure, *rest, **words)

    save = pyplot.Figure.savefig
    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    for value, limits in ((1, (0, 2)), (0.25, (0.0, 0.5))):
        heat_map([Panel("a", {SiteKey(0, "q_proj"): value}, limits=limits)], "x")
    counts, shares = ticks
    assert all(tick.is_integer() for tick in counts)
    assert sum(0 <= tick <= 0.5 for tick in shares) >= 3


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [5e-324, 1e308], [-1.0, 1.0]])
@pytest.mark.parametrize("scale", ["auto", "linear", "log"])
def test_unusual_numbers_are_drawn(values, scale):
    panel = Panel("a", dict(zip(ALL, values)))
    assert heat_map([panel], "score", scale).startswith(b"\x89PNG")


def test_numbers_fit_their_cells():
    numbers = [0, 1, 20, 0.281633, 1234.5, 123456, 1.8e-21, -0.5, 1e10]
    assert [heat_maps._number(value) for value in numbers] == [
        "0", "1", "20", "0.282", "1.23e+03", "1e5", "2e-21", "-0.5", "1e10"
    ]  # fmt: skip


def test_an_empty_map_is_refused():
    with pytest.raises(ValueError, match="no module to draw"):
        heat_map([Panel("a", {})], "score")


def test_equal_titles_are_extended_by_their_directories():
    paths = [Path("one/search/history.toml"), Path("two/history.toml"), Path("three/other.toml")]
    assert distinct_titles(["history", "history", "other"], paths) == [
        "one: history",
        "two: history",
        "other",
    ]
