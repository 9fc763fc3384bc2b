"""Compare the A and B matrices of several adapters: t-SNE embeddings and cosine similarities.

Usage: python -m tools.analyze_ab ADAPTERS ADAPTERS [...] [--output ab.json]
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings, InputFault
from configs.runtime.files import place_faults, write_bytes, write_text
from configs.schema.values import PathText, Switch
from model.exchange.adapter_directory import find_adapter

_FLAGS = (
    Flag(
        "ADAPTERS", PathText(), "A PEFT adapter directory, or a run directory.", required=True, repeats=True
    ),
    Flag(
        "--output",
        PathText(),
        "JSON file of the results; the picture gets the same name with .png.",
        default=Path("ab.json"),
    ),
    Flag("--json", Switch(), "Print JSON instead of tables.", default=False),
)
_FEWEST = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the adapters, write and print the results, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        purpose = "Compare the A and B matrices of several adapters."
        given = read_words("tools.analyze_ab", purpose, _FLAGS, words)
        output = given.output.absolute()
        places = checked(given.adapters, output)
        from model.exchange.adapter_similarity import (
            FACTOR_MARKERS,
            embed,
            flat_factors,
            scatter_rows,
            similarity,
        )
        from model.exchange.peft_format import read
        from model.figures.scatter import scatter_grid

        adapters = {name: flat_factors(read(path, "ADAPTERS")) for name, path in places.items()}
        empty = [str(places[name]) for name, flats in adapters.items() if not flats]
        if empty:
            raise InputFault(*(f"ADAPTERS: {path} has no A and B matrices" for path in empty))
        found, groups = similarity(adapters), embed(adapters)
        content = json.dumps(numbers(adapters, found, groups), indent=1, allow_nan=False) + "\n"
        write_text(output, content)
        picture = scatter_grid(scatter_rows(groups), list(adapters), FACTOR_MARKERS)
        write_bytes(output.with_suffix(".png"), picture)
        if given.json:
            console.say(content.rstrip("\n"))
        else:
            show(found, groups, output)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(paths: Sequence[Path], output: Path) -> dict[str, Path]:
    """Return name -> directory of every adapter; imports no heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    findings.lines += place_faults("--output", output)
    findings.lines += place_faults("--output", output.with_suffix(".png"))
    attempts = [findings.attempt(partial(_directory, path)) for path in paths]
    if len(paths) < _FEWEST:
        findings.lines.append(f"ADAPTERS: needs at least {_FEWEST} adapters, got {len(paths)}")
    twice = [path for path, count in Counter(attempts).items() if path is not None and count > 1]
    findings.lines += [f"ADAPTERS: '{path}' is given twice" for path in twice]
    found = [findings.settled(path) for path in attempts]
    names = [path.parent.name if path.name == "adapter" else path.name for path in found]
    is_clear = len(set(names)) == len(names)
    return dict(zip(names if is_clear else map(str, found), found))


def _directory(path: Path) -> Path:
    return find_adapter(path, "ADAPTERS").absolute()


def numbers(adapters: Mapping[str, Sequence[Any]], found: Any, groups: Sequence[Any]) -> dict[str, Any]:
    """Return the content of the JSON file."""
    return {
        "adapters": {
            name: [[one.index, one.module, one.factor, len(one.values)] for one in flats]
            for name, flats in adapters.items()
        },
        "cosine": {
            "mean": found.mean,
            "compared": found.compared,
            "skipped": found.skipped,
            "pairs": [{"adapters": list(pair), **values} for pair, values in found.pairs.items()],
            "modules": found.modules,
        },
        "tsne": [
            {
                "view": group.view,
                "size": group.size,
                "count": group.count,
                "points": [[point.adapter, point.index, point.x, point.y] for point in group.points],
            }
            for group in groups
        ],
    }


def show(found: Any, groups: Sequence[Any], output: Path) -> None:
    """Print the tables of similarities, views with too few points, and the files."""
    rows = [(" and ".join(pair), *map(_cell, values.values())) for pair, values in found.pairs.items()]
    rows.append(("mean", *map(_cell, found.mean.values())))
    console.table("Cosine similarity, mean over modules", ("adapters", "A", "B"), rows)
    kinds: dict[str, dict[str, list[float]]] = {}
    for module, values in found.modules.items():
        held = kinds.setdefault(_kind(module), {"A": [], "B": []})
        for factor, value in values.items():
            held[factor] += [] if value is None else [value]
    means = {
        kind: [_cell(sum(values) / len(values) if values else None) for values in held.values()]
        for kind, held in kinds.items()
    }
    rows = [(kind, *cells) for kind, cells in means.items()]
    console.table("Cosine similarity, mean over layers and pairs", ("module", "A", "B"), rows)
    if found.skipped:
        console.say(f"note: {found.skipped} matrices not compared: zero, or without one of the same shape")
    for group in groups:
        if not group.points:
            console.say(
                f"note: view {group.view}: {group.count} matrices of {group.size:,} entries, too few to embed"
            )
    console.say(f"written: {output}\nwritten: {output.with_suffix('.png')}")


def _kind(module: str) -> str:
    """Return a module's name within its layer: `model.layers.0.self_attn.q_proj` -> `self_attn.q_proj`."""
    words = module.replace("/", ".").split(".")
    last = max((at for at, word in enumerate(words) if word.removeprefix("layer_").isdecimal()), default=-1)
    return ".".join(words[last + 1 :])


def _cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    sys.exit(main())
