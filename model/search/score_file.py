"""Score files: saliencies of modules, a table `[layer_i]` for each layer, and how they were computed.

    method = "snip"
    dataset = "sst2"
    widths = [["q_proj", 1024, 1024], ["v_proj", 1024, 1024]]

    [layer_0]
    q_proj = 0.0030639404
    v_proj = 0.281633764

Files of the earlier implementation have the same tables under other names of the modules (`out_proj`, `fc1`,
`residual_1`, …) and are also read; their further keys become metadata.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault, NonFiniteFault
from configs.runtime.files import write_text
from configs.schema.number_values import Real, Whole
from configs.toml.reader import read_document
from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.search.allocation import rounded
from model.search.layer_tables import is_layer, read_layers, write_layers
from model.site import SiteKey, role_named

_WIDTHS = "widths"


@dataclass(frozen=True)
class Scores:
    """Scores of modules and facts about them.

    Args:
        values: module -> score; larger is more important.
        metadata: how the scores were computed: method, dataset, task, seed, limit_test_num, …
        widths: role -> (D_in, D_out) of its modules, where known; a LoRA module of rank R has
            R x (D_in + D_out) parameters.
    """

    values: Mapping[SiteKey, float]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def costs(self) -> dict[SiteKey, int] | None:
        """Return the parameters of one rank of each module, or None when a width is unknown."""
        if not {key.role for key in self.values} <= set(self.widths):
            return None
        return {key: sum(self.widths[key.role]) for key in self.values}


def score_text(scores: Scores) -> str:
    """Return the text of a score file: role names, 9 significant digits, modules in order.

    Raises:
        NonFiniteFault: when a score is NaN or infinite.
    """
    for key in sorted(scores.values):
        if not math.isfinite(scores.values[key]):
            raise NonFiniteFault(f"scores: not finite: {key} has {scores.values[key]}")
    table = dict(scores.metadata)
    if scores.widths:
        table[_WIDTHS] = [[role, *widths] for role, widths in scores.widths.items()]
    layers = write_layers({key: rounded(score) for key, score in scores.values.items()})
    return toml_text(table | layers)


def write_scores(path: Path, scores: Scores) -> None:
    """Write a score file; equal scores and metadata give equal bytes.

    Raises:
        NonFiniteFault: when a score is NaN or infinite; nothing is written then.
    """
    write_text(path, score_text(scores))


def read_scores(path: Path, where: str = "FILE") -> Scores:
    """Read a score file of this program or of the earlier implementation.

    Args:
        path: the file.
        where: the argument that named it, for a refusal when there is no such file.

    Raises:
        InputFault: a line for each fault, naming file, table and key.
    """
    table = read_document(path, where).table
    faults: list[str] = []
    values = read_layers(table, Real().take, faults)
    layers = {name for name, content in table.items() if is_layer(name, content)}
    if not layers:
        faults.append("no table [layer_0] or of another layer; this is not a score file")
    widths = _take_widths(table.get(_WIDTHS, []), faults)
    if faults:
        raise InputFault(*(f"{path}: {fault}" for fault in faults))
    metadata = {key: value for key, value in table.items() if key not in layers and key != _WIDTHS}
    return Scores(values, metadata, widths)


def _take_widths(rows: Any, faults: list[str]) -> dict[str, tuple[int, int]]:
    widths = {}
    try:
        for name, wide, out in rows:
            widths[role_named(name)] = (Whole(1).take(wide), Whole(1).take(out))
    except (TypeError, ValueError):
        faults.append(f"{_WIDTHS}: must be a list of [role, D_in, D_out]")
    return widths


def score_panel(scores: Scores, name: str) -> Panel:
    """Return the map of a score file: its method and data set, and how many scores are zero or tied.

    Args:
        scores: the file's content.
        name: the title if the file names no method.
    """
    words = [str(scores.metadata.get("method", name)), str(scores.metadata.get("dataset", ""))]
    times = Counter(map(rounded, scores.values.values()))
    zeros, tied = times.pop(0.0, 0), sum(count for count in times.values() if count > 1)
    facts = [
        f"{len(scores.values)} modules",
        f"{zeros} zero" if zeros else "",
        f"{tied} tied" if tied else "",
    ]
    return Panel(" on ".join(filter(None, words)), scores.values, ", ".join(filter(None, facts)))
