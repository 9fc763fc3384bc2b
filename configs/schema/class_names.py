"""Names of classes: those of a saved network's head, compared with those of the data."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NO_NAME = re.compile(r"LABEL_\d+|\d+")


def saved_labels(config: Mapping[str, Any]) -> list[str]:
    """Return the class names of a config.json in the order of their ids; empty where it has none.

    Args:
        config: its content; `label2id` counts where there is no `id2label`.
    """
    table, other = config.get("id2label"), config.get("label2id")
    if table is None and isinstance(other, Mapping):
        table = {str(number): name for name, number in other.items()}
    if not isinstance(table, Mapping) or set(table) != {str(number) for number in range(len(table))}:
        return []
    return [str(table[str(number)]) for number in range(len(table))]


def head_notes(config: Mapping[str, Any], problem: str) -> tuple[str, ...]:
    """Return what in a config.json contradicts the use of its head, a line each.

    Args:
        config: its content.
        problem: the `problem_type` for which the head is used.
    """
    notes = []
    trained = config.get("problem_type")
    if trained is not None and trained != problem:
        notes.append(f"the base's head was trained for {trained}; it is used for {problem}")
    table, other = config.get("id2label"), config.get("label2id")
    names = saved_labels(config)
    if table and not names:
        notes.append(
            "id2label of the base does not number its classes from 0; its rows are used in their order"
        )
    elif (
        isinstance(other, Mapping)
        and other
        and {str(name): number for name, number in other.items()}
        != {name: number for number, name in enumerate(names)}
    ):
        notes.append("id2label and label2id of the base differ; id2label is used")
    return tuple(notes)


def label_order(theirs: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """Return the position in `theirs` of each of `ours`; None where the names are not the same ones.

    Names are compared without case and punctuation: `NOT_ENTAILMENT` is `not entailment`.
    """
    known = {_plain(name): number for number, name in enumerate(theirs)}
    order = [known.get(_plain(name), -1) for name in ours]
    is_permutation = sorted(order) == list(range(len(theirs))) and len(known) == len(theirs)
    return order if is_permutation else None


def are_no_names(labels: Sequence[str]) -> bool:
    """Return whether labels are numbers only, as `LABEL_0`."""
    return all(_NO_NAME.fullmatch(label) for label in labels)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
