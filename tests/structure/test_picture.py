"""The picture of the floors is that of today's imports, and its arrows lead down."""

import itertools

import pytest

from docs.draw_floors import PICTURE, graph, layout, picture, reduced
from tests.structure.test_floors import FLOORS


def test_the_picture_is_of_todays_imports():
    assert PICTURE.read_text() == picture(), "make it again: python docs/draw_floors.py"


def test_every_folder_with_a_floor_is_drawn():
    assert set(graph()) == {*FLOORS, "benchmarks"}


def test_arrows_lead_down_and_folders_do_not_overlap():
    rooms = reduced(graph())
    drawing = layout({name: targets & set(rooms) for name, targets in rooms.items()})
    for arrow in drawing.arrows:
        heights = [drawing.heights[place] for place in arrow]
        assert heights == sorted(set(heights), reverse=True)
    places = [(drawing.heights[name], drawing.centres[name]) for name in rooms]
    for (row, x), (other_row, other_x) in itertools.combinations(places, 2):
        assert row != other_row or abs(x - other_x) > 0.99


def test_arrows_that_follow_from_others_are_left_out():
    assert reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_an_import_cycle_is_refused():
    with pytest.raises(ValueError, match="circle"):
        reduced({"a": {"b"}, "b": {"a"}})
