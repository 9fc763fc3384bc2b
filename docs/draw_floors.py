"""Draw the rooms of the code and which of them imports which: python docs/draw_floors.py.

The picture is made from the imports alone and written to docs/pictures/floors.svg. A room is a folder below
configs, dataset or model, or a module next to such folders. Arrows that follow from others are left
out (transitive reduction), and so are arrows into configs, which every room may import.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "floors.svg"
TOPS = ("benchmarks", "tools", "main")
PACKAGES = ("dataset", "model", "configs")

Graph = dict[str, set[str]]

BOX = (166, 34)
"""Width and height of a room."""
GAP = (22, 38)
"""Horizontal and vertical space between rooms."""
MARGIN = 20
NOTE = "All rooms above may import configs. Arrows that follow from others are left out."
COLOURS = {"configs": "#e7e3d4", "dataset": "#d9e8d4", "model": "#d5e2f0"}
PLAIN = "#eeeeee"


def modules() -> dict[str, Path]:
    """Return every module by dotted name; the docstrings of packages are none."""
    files = [ROOT / "main.py", *(f for top in (*TOPS, *PACKAGES) for f in (ROOT / top).rglob("*.py"))]
    named = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in files}
    return {name: path for name, path in sorted(named.items()) if path.name != "__init__.py"}


def room(name: str) -> str:
    """Return the room of a module: its first two folders, or one of those that use all the others."""
    return name.split(".")[0] if name.split(".")[0] in TOPS else ".".join(name.split(".")[:2])


def _imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def graph() -> Graph:
    """Return room -> the other rooms that it imports."""
    known = modules()
    rooms: Graph = {room(name): set() for name in known}
    for name, path in known.items():
        targets = {room(target) for target in _imported(path) if target in known}
        rooms[room(name)] |= targets - {room(name)}
    return rooms


def reduced(rooms: Mapping[str, set[str]]) -> Graph:
    """Return the transitive reduction: the arrows that do not follow from others.

    Raises:
        ValueError: naming rooms that import each other in a circle.
    """
    below: Graph = {}

    def reach(name: str, trail: tuple[str, ...]) -> set[str]:
        """Return every room that can be reached from one; `trail` leads to it."""
        if name in trail:
            raise ValueError(f"a circle of imports: {' -> '.join((*trail, name))}")
        if name not in below:
            found = [{target} | reach(target, (*trail, name)) for target in sorted(rooms[name])]
            below[name] = set().union(*found)
        return below[name]

    for name in rooms:
        reach(name, ())
    return {
        name: {target for target in targets if not any(target in below[other] for other in targets)}
        for name, targets in rooms.items()
    }


def rows(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the row of each room, 0 lowest: above all that it imports, and close below its users."""
    lowest: dict[str, int] = {}

    def height(name: str) -> int:
        """Return the length of the longest way down from a room."""
        if name not in lowest:
            lowest[name] = 1 + max((height(target) for target in rooms[name]), default=-1)
        return lowest[name]

    order = sorted(rooms, key=height, reverse=True)
    users = {name: {user for user in rooms if name in rooms[user]} for name in rooms}
    registries = {name for name in rooms if not users[name] and name not in TOPS}
    placed = {name: max(lowest.values()) for name in TOPS if name in rooms}
    for name in (name for name in order if name not in placed):
        above = [placed[user] for user in users[name] - registries]
        placed[name] = min(above) - 1 if above else lowest[name]
    for name in registries:
        placed[name] = 1 + max((placed[target] for target in rooms[name]), default=-1)
    return placed


@dataclass(frozen=True)
class Drawing:
    """A layered drawing.

    Args:
        centres: room, or place where an arrow passes a row -> x, in units of a room's width, from the left.
        heights: the same -> row, 0 lowest.
        arrows: each arrow's rooms, and between them the places it passes.
    """

    centres: Mapping[str, float]
    heights: Mapping[str, int]
    arrows: Sequence[Sequence[str]]


def _paths(rooms: Mapping[str, set[str]], heights: dict[str, int]) -> list[list[str]]:
    """Return the arrows; a place is put into `heights` for each row that one passes."""
    arrows = []
    for name in sorted(rooms):
        for target in sorted(rooms[name]):
            passed = [f"{target}<{name}@{row}" for row in range(heights[name] - 1, heights[target], -1)]
            heights.update({place: int(place.rpartition("@")[2]) for place in passed})
            arrows.append([name, *passed, target])
    return arrows


def _column(place: str) -> int:
    """Return the column of a room or of a place on the way to it: its package's, the tops' in between."""
    package = place.split(".")[0]
    return PACKAGES.index(package) * 2 if package in PACKAGES else 1


def _width(place: str) -> float:
    """Return how wide a place is: an arrow that passes needs less than a room."""
    return 0.3 if "@" in place else 1.0


def _spread(order: Sequence[str], axis: float) -> dict[str, float]:
    """Return the centres of places side by side, in the given order around an axis."""
    left = axis - sum(map(_width, order)) / 2
    centres = {}
    for place in order:
        centres[place] = left + _width(place) / 2
        left += _width(place)
    return centres


def _axes(groups: Mapping[tuple[int, int], Sequence[str]]) -> dict[int, float]:
    """Return column -> x of its middle: columns of packages side by side, the tops over all of them."""
    columns = {column for column, _ in groups}
    wide = {
        c: max(sum(map(_width, group)) for (one, _), group in groups.items() if one == c) for c in columns
    }
    axes, left = {}, 0.0
    for column in sorted(columns - {1}):
        axes[column] = left + wide[column] / 2
        left += wide[column] + 0.3
    return {**axes, 1: (left - 0.3) / 2}


def layout(rooms: Mapping[str, set[str]]) -> Drawing:
    """Return a drawing in rows; every arrow leads down."""
    heights = rows(rooms)
    arrows = _paths(rooms, heights)
    near: dict[str, list[str]] = {place: [] for place in heights}
    for arrow in arrows:
        for upper, lower in zip(arrow, arrow[1:]):
            near[upper].append(lower)
            near[lower].append(upper)
    groups: dict[tuple[int, int], list[str]] = {}
    for place in sorted(heights):
        groups.setdefault((_column(place), heights[place]), []).append(place)
    axes, centres = _axes(groups), dict.fromkeys(heights, 0.0)
    for (column, _), group in groups.items():
        centres.update(_spread(group, axes[column]))

    def middle(place: str) -> float:
        """Return the mean x of what an arrow joins to a place."""
        return sum(centres[other] for other in near[place]) / len(near[place]) if near[place] else 0.0

    for _ in range(20):
        for key in (*sorted(groups, key=lambda key: key[1]), *sorted(groups, key=lambda key: -key[1])):
            order = sorted(groups[key], key=lambda place: (middle(place), place))
            centres.update(_spread(order, axes[key[0]]))
    left = min(centres[place] - _width(place) / 2 for place in centres)
    return Drawing({place: round(c - left, 2) for place, c in centres.items()}, heights, arrows)


def _shapes(drawing: Drawing, left: float, top: float) -> Iterator[str]:
    """Yield the SVG of a drawing whose upper left corner is given in pixels."""
    (width, height), (beside, above) = BOX, GAP
    highest = max(drawing.heights.values())
    x = {p: left + c * (width + beside) for p, c in drawing.centres.items()}
    y = {p: top + (highest - row) * (height + above) for p, row in drawing.heights.items()}
    for arrow in drawing.arrows:
        path = f"M {x[arrow[0]]:.0f} {y[arrow[0]] + height:.0f}"
        for upper, lower in zip(arrow, arrow[1:]):
            start, end = y[upper] + height, y[lower] - (4 if lower == arrow[-1] else 0)
            middle = (start + end) / 2
            path += f" C {x[upper]:.0f} {middle:.0f} {x[lower]:.0f} {middle:.0f} {x[lower]:.0f} {end:.0f}"
            path += "" if lower == arrow[-1] else f" V {y[lower] + height:.0f}"
        yield f'<path d="{path}" fill="none" stroke="#555555" stroke-width="1.3" marker-end="url(#tip)"/>'
    for place in sorted(drawing.centres):
        if "@" not in place:
            yield from _box(place, x[place] - width / 2, y[place])


def _box(name: str, x: float, y: float) -> Iterator[str]:
    """Yield a room's box and name."""
    width, height = BOX
    colour = COLOURS.get(name.split(".")[0], PLAIN)
    yield (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width}" height="{height}" rx="5" '
        f'fill="{colour}" stroke="#777777"/>'
    )
    yield f'<text x="{x + width / 2:.0f}" y="{y + height / 2 + 5:.0f}" text-anchor="middle">{name}</text>'


def _size(drawing: Drawing) -> tuple[float, float]:
    """Return width and height of a drawing in pixels."""
    wide = max(centre + _width(place) / 2 for place, centre in drawing.centres.items())
    high = max(drawing.heights.values()) + 1
    return wide * (BOX[0] + GAP[0]), high * BOX[1] + (high - 1) * GAP[1]


def picture() -> str:
    """Return the picture as SVG: the same text for the same imports."""
    arrows = reduced(graph())
    base = {name: targets for name, targets in arrows.items() if name.startswith("configs.")}
    house = {name: targets - set(base) for name, targets in arrows.items() if name not in base}
    upper, lower = layout(house), layout(base)
    (wide, high), (base_wide, base_high) = _size(upper), _size(lower)
    width, line = max(wide, base_wide) + 2 * MARGIN, MARGIN + high + GAP[1]
    body: Iterable[str] = [
        *_shapes(upper, MARGIN + (width - 2 * MARGIN - wide) / 2, MARGIN),
        f'<path d="M {MARGIN} {line:.0f} H {width - MARGIN:.0f}" stroke="#999999" stroke-dasharray="6 4"/>',
        f'<text x="{MARGIN}" y="{line + 24:.0f}">{NOTE}</text>',
        *_shapes(lower, (width - base_wide) / 2, line + GAP[1]),
    ]
    size = f"{width:.0f} {line + GAP[1] + base_high + MARGIN:.0f}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
            'font-family="sans-serif" font-size="14">',
            '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="4" refY="4" orient="auto">'
            '<path d="M 0 0 L 8 4 L 0 8 z" fill="#555555"/></marker></defs>',
            f'<rect width="{size.split()[0]}" height="{size.split()[1]}" fill="white"/>',
            *body,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
