"""The history of a dynamic search, and how often each module was on.

    [dyrealloc_0]
    epoch = 0
    step = 0
    turn_on = [["0", "q_proj", "0.25", "False"], ["0", "v_proj", "1.5", "True"]]

An item is [layer, module, score, whether the module is on], all written as strings. Typed items
(`[0, "q_proj", 0.25, false]`) and the module names of the earlier implementation are also read.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from configs.runtime.faults import InputFault
from configs.schema.number_values import Real, Whole
from configs.toml.reader import read_document
from configs.toml.writer import toml_text
from model.figures.heat_maps import Panel
from model.search.allocation import rounded
from model.search.layer_tables import read_layers, write_layers
from model.site import SiteKey, is_shortcut, role_named

Found = TypeVar("Found")

_TABLE = re.compile(r"dyrealloc_(0|[1-9][0-9]{0,8})")
_TOTAL = "total_reallocation_number"
_FLAGS = {"True": True, "False": False, "true": True, "false": False}


@dataclass(frozen=True)
class Reallocation:
    """One decision.

    Args:
        epoch: when it was taken.
        step: index of the batch within the epoch.
        scores: eligible module -> its score.
        on: those of them that are on.
    """

    epoch: int
    step: int
    scores: Mapping[SiteKey, float]
    on: frozenset[SiteKey]

    @property
    def lora_share(self) -> float | None:
        """The share of LoRA modules among those that are on, in [0, 1]; None when none is on."""
        return sum(not is_shortcut(key) for key in self.on) / len(self.on) if self.on else None


@dataclass(frozen=True)
class History:
    """All decisions of a run.

    Args:
        reallocations: in order.
        metadata: facts at the top of the file, for example `max_alpha`.
    """

    reallocations: Sequence[Reallocation]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frequency:
    """How often modules were on.

    Args:
        total: number of reallocations.
        counts: module -> number of reallocations in which it was on.
    """

    total: int
    counts: Mapping[SiteKey, int]


def frequency(history: History) -> Frequency:
    """Count in how many reallocations each module was on."""
    keys = sorted({key for one in history.reallocations for key in one.scores})
    counts = {key: sum(key in one.on for one in history.reallocations) for key in keys}
    return Frequency(len(history.reallocations), counts)


def history_text(history: History) -> str:
    """Return the text of a history file: items as strings, role names, scores with 9 digits, in order."""
    table = dict(history.metadata)
    for number, one in enumerate(history.reallocations):
        items = [
            [str(key.layer), key.role, repr(rounded(one.scores[key])), str(key in one.on)]
            for key in sorted(one.scores)
        ]
        table[f"dyrealloc_{number}"] = {"epoch": one.epoch, "step": one.step, "turn_on": items}
    return toml_text(table)


def frequency_text(counted: Frequency) -> str:
    """Return the text of a frequency file."""
    return toml_text({_TOTAL: counted.total} | write_layers(counted.counts))


def read_history(path: Path, where: str = "HISTORY") -> History:
    """Read a history file of either form.

    Args:
        path: the file.
        where: the argument that named it, for a refusal when there is no such file.

    Raises:
        InputFault: a line for each faulty table, naming file, table and item.
    """
    return _read(path, where, _history)


def read_frequency(path: Path, where: str = "FREQUENCY") -> Frequency:
    """Read a frequency file.

    Raises:
        InputFault: a line for each fault, naming file, table and key.
    """
    return _read(path, where, _frequency)


def read_either(path: Path, where: str = "FILE") -> tuple[Frequency, History]:
    """Read a history or a frequency file, whichever it is; a frequency file gives an empty history.

    Raises:
        InputFault: a line for each fault.
    """
    if _TOTAL in read_document(path, where).table:
        return read_frequency(path, where), History(())
    history = read_history(path, where)
    return frequency(history), history


def _read(path: Path, where: str, take: Callable[[Mapping[str, Any], list[str]], Found]) -> Found:
    faults: list[str] = []
    found = take(read_document(path, where).table, faults)
    if faults:
        raise InputFault(*(f"{path}: {fault}" for fault in faults))
    return found


def _history(table: Mapping[str, Any], faults: list[str]) -> History:
    numbered = {int(match[1]): name for name in table if (match := _TABLE.fullmatch(name))}
    found = []
    for number in sorted(numbered):
        try:
            found.append(_reallocation(table[numbered[number]]))
        except ValueError as refusal:
            faults.append(f"[{numbered[number]}] {refusal}")
    if not numbered:
        faults.append("no table [dyrealloc_0]; this is not a history file")
    others = {name: value for name, value in table.items() if name not in numbered.values()}
    return History(tuple(found), others)


def _reallocation(content: Any) -> Reallocation:
    """Return the decision of one table.

    Raises:
        ValueError: for a wrong value; the message begins with its key.
    """
    if not isinstance(content, dict) or not isinstance(content.get("turn_on"), list):
        raise ValueError("turn_on: must be a list of [layer, module, score, enabled]")
    numbers = {}
    for name in ("epoch", "step"):
        try:
            numbers[name] = _typed(Whole(0), content.get(name))
        except ValueError as refusal:
            raise ValueError(f"{name}: {refusal}") from None
    scores, on = {}, set()
    for place, item in enumerate(content["turn_on"]):
        try:
            key, score, is_on = _item(item)
        except ValueError as refusal:
            raise ValueError(f"turn_on[{place}]: {refusal}") from None
        if key in scores:
            raise ValueError(f"turn_on[{place}]: {key} appears twice")
        scores[key] = score
        on |= {key} if is_on else set()
    return Reallocation(numbers["epoch"], numbers["step"], dict(sorted(scores.items())), frozenset(on))


def _item(item: Any) -> tuple[SiteKey, float, bool]:
    if not isinstance(item, list) or len(item) != 4:
        raise ValueError("must be [layer, module, score, enabled]")
    layer, name, score, enabled = item
    key = SiteKey(_typed(Whole(0), layer), role_named(str(name)))
    # The string "False" is true, as it is not empty: look its meaning up.
    is_on = _FLAGS.get(enabled) if isinstance(enabled, str) else enabled
    if not isinstance(is_on, bool):
        raise ValueError(f'enabled must be "True" or "False", got {enabled!r}')
    return key, _typed(Real(), score), is_on


def _typed(kind: Whole | Real, value: Any) -> Any:
    """Return a number that is given as a number or as a string."""
    return kind.read(value) if isinstance(value, str) else kind.take(value)


def _frequency(table: Mapping[str, Any], faults: list[str]) -> Frequency:
    try:
        total = Whole(0).take(table.get(_TOTAL))
    except ValueError as refusal:
        faults.append(f"{_TOTAL}: {refusal}")
        return Frequency(0, {})
    return Frequency(total, read_layers(table, Whole(0, total).take, faults))


def frequency_panel(counted: Frequency, name: str) -> Panel:
    """Return the map of how often modules were on, its colours from 0 to the number of reallocations."""
    never = sum(count == 0 for count in counted.counts.values())
    note = f"{counted.total} reallocations, {len(counted.counts)} modules, {never} never on"
    return Panel(name, counted.counts, note, (0, max(1, counted.total)))
