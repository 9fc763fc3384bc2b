"""`metadata.json` of an adapter that this program wrote; a file of that name from another tool is none."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.runtime.files import read_regular, sha256
from configs.toml.binding import bind

FILE = "metadata.json"
TENSORS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
FLOW = "flow"
"""The key with the sets that an adapter of kind `flow` fuses."""


def adapter_place(path: Path) -> Path:
    """Return the directory of an adapter that may be given by the directory of its run; else `path`."""
    of_run = path / "adapter"
    return of_run if not (path / CONFIG).is_file() and (of_run / CONFIG).is_file() else path


@dataclass(frozen=True)
class RecordedSet:
    """A LoRA set that gates weigh: its name, its directory, and the digests of its two files."""

    name: str
    path: str
    tensors: str
    config: str


@dataclass(frozen=True)
class _Record:
    sets: tuple[RecordedSet, ...]


def record_set(name: str, directory: Path) -> RecordedSet:
    """Return the record of a set."""
    digests = (sha256(directory / file) for file in (TENSORS, CONFIG))
    return RecordedSet(name, str(directory.absolute()), *digests)


def set_places(metadata: Mapping[str, Any], where: str, given: Sequence[Path] = ()) -> list[Path]:
    """Return where the sets of a Flow adapter are, after comparing their digests; none for other adapters.

    Args:
        metadata: content of its metadata.json.
        where: that file.
        given: where the sets are now; empty: where they were.

    Raises:
        InputFault: naming the set that is missing or was changed.
    """
    if FLOW not in metadata:
        return []
    sets = bind(_Record, metadata[FLOW], f"{where}: {FLOW}").sets
    if given and len(given) != len(sets):
        raise InputFault(f"--adapter: {where} fuses {len(sets)} sets, {len(given)} are given after it")
    places = list(given) or [Path(one.path) for one in sets]
    for one, place in zip(sets, places):
        if not (place / TENSORS).is_file():
            raise InputFault(
                f"{where}: the set '{one.name}' is not at {place}; give where the sets are now, in order, by"
                " further --adapter"
            )
        if (sha256(place / TENSORS), sha256(place / CONFIG)) != (one.tensors, one.config):
            raise InputFault(f"{where}: {place} is not the set '{one.name}' that the gates were trained with")
    return places


def own_record(adapter: Path) -> dict[str, Any]:
    """Return the content of an adapter's metadata.json; empty where there is none that this program wrote.

    What this program writes contains the digest of the tensor file, so that an edited file is still checked.

    Args:
        adapter: the directory.

    Raises:
        InputFault: when the file is not valid JSON.
    """
    try:
        table = json.loads(read_regular(adapter / FILE))
    except OSError:
        return {}
    except (ValueError, RecursionError) as error:
        raise InputFault(f"{adapter / FILE}: is not valid JSON ({error})") from None
    digests = table.get("sha256") if isinstance(table, dict) else None
    return table if isinstance(digests, dict) and TENSORS in digests else {}
