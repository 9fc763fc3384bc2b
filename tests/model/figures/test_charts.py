"""Pictures are drawn without a screen, whole, and alike for alike numbers."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot

from model.figures.charts import banded_lines, elbow_curve, running_mean, share_lines, training_curves


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0.0, 0.99))
def test_the_running_mean_is_the_weighted_mean_of_the_values_so_far(values, weight):
    for count, mean in enumerate(running_mean(values, weight), start=1):
        weights = [weight ** (count - 1 - i) for i in range(count)]
        expected = sum(w * v for w, v in zip(weights, values)) / sum(weights)
        assert mean == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_constant_stays_itself():
    assert running_mean([2.0] * 5) == pytest.approx([2.0] * 5)
    assert running_mean([]) == []


@pytest.mark.parametrize("evaluations", [{}, {2: 0.5, 3: 0.75}])
def test_the_curves_are_a_picture_and_nothing_stays_open(tmp_path, evaluations):
    for name in ("a.png", "b.png"):
        training_curves(tmp_path / name, {1: 2.0, 2: 1.0, 3: 0.5}, evaluations, "val/accuracy", 3)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]
    assert pyplot.get_fignums() == []


def test_shares_are_drawn_with_gaps_and_with_the_share_of_a_random_choice(monkeypatch):
    drawn = []

    def look(figure, *rest, **words):
        drawn.extend((line.get_label(), list(line.get_ydata())) for line in figure.axes[0].get_lines())
        return save(figure, *rest, **words)

    save = pyplot.Figure.savefig
    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    content = share_lines({"one": [0.25, None, 0.75], "two": [1.0]}, [0.5, 0.5])
    assert content.startswith(b"\x89PNG")
    assert [label for label, _ in drawn] == ["one", "two", "blind choice"]
    assert (drawn[0][1][::2], drawn[2][1]) == ([0.25, 0.75], [0.5, 0.5])
    assert drawn[0][1][1] != drawn[0][1][1]
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("errors", [{1: 8.0, 2: 3.0, 3: 2.0}, {1: 8.0}])
def test_the_elbow_is_marked_on_its_curve(monkeypatch, errors):
    marked, drawn = [], []

    def look(figure, *rest, **words):
        axes = figure.axes[0]
        marked.extend(mark.get_offsets().tolist() for mark in axes.collections)
        drawn.extend((line.get_label(), list(line.get_ydata())) for line in axes.get_lines())
        return save(figure, *rest, **words)

    save = pyplot.Figure.savefig
    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    chosen = min(2, len(errors))
    assert elbow_curve(errors, chosen).startswith(b"\x89PNG")
    assert marked == [[[chosen, errors[chosen]]]]
    assert drawn[0] == ("squared error", list(errors.values()))
    assert drawn[1:] == ([("chord", [8.0, 2.0])] if len(errors) > 1 else [])
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("count", [1, 3, 100])
def test_lines_with_bands_are_a_picture_alike_for_alike_numbers(count):
    lines = {"a": [(0.1 * n, 0.05) for n in range(count)], "b": [(-0.1, 0.0)] * count}
    content = banded_lines(lines, "layer", "weight")
    assert content.startswith(b"\x89PNG")
    assert content == banded_lines(lines, "layer", "weight")
    assert content != banded_lines({"a": lines["a"]}, "layer", "weight")
    assert pyplot.get_fignums() == []
