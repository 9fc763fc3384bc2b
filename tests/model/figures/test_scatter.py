"""Scatter plots show every point with its text, in a panel of its own for each title."""

from matplotlib import pyplot

from model.figures.scatter import Mark, ScatterPanel, scatter_grid


def test_points_have_their_texts_in_the_panels_they_belong_to(monkeypatch):
    texts, titles = [], []

    def look(figure, *rest, **words):
        for axes in figure.axes:
            if axes.get_visible():
                titles.append(axes.get_title(loc="left"))
                texts.append([text.get_text() for text in axes.texts])
        return save(figure, *rest, **words)

    save = pyplot.Figure.savefig
    monkeypatch.setattr(pyplot.Figure, "savefig", look)
    marks = [Mark(at + 0.5, -at, str(at), name, "AB"[at % 2]) for name in ("one", "two") for at in range(2)]
    rows = [[ScatterPanel("half", marks[:3]), ScatterPanel("whole", marks)], []]
    content = scatter_grid(rows, ["one", "two"], {"A": "o", "B": "^"})
    assert content.startswith(b"\x89PNG")
    assert titles == ["half", "whole"]
    assert texts == [["0", "1", "0"], ["0", "1", "0", "1"]]
    assert pyplot.get_fignums() == []
