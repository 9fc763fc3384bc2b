"""A checked command line: the options, the source of each value, the free tables."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema.options import Options


@dataclass(frozen=True)
class Bound:
    """A checked command line.

    Args:
        action: ACTION.
        options: the effective options; all paths are absolute.
        sources: field of `Options` -> `default`, `adapter`, `run`, a TOML file's path, or `command line`.
        tables: the free TOML tables by name, e.g. `data`.
        table_files: table -> the last file that set a key of it.
        notes: lines to print once, about given options that the action does not use.
    """

    action: str
    options: Options
    sources: dict[str, str]
    tables: dict[str, Any]
    table_files: dict[str, Path]
    notes: tuple[str, ...]

    def is_given(self, name: str) -> bool:
        """Return whether an option was given, and not left at its default."""
        return self.sources[name] != "default"

    def with_table(self, name: str, content: Mapping[str, Any]) -> "Bound":
        """Return it with a free table replaced; an empty `content` changes nothing."""
        return dataclasses.replace(self, tables={**self.tables, name: dict(content)}) if content else self


def absolute(table: Mapping[str, Any], keys: Sequence[str], directory: Path | None) -> dict[str, Any]:
    """Return a table with its file names made absolute, so that its copy in a run works from anywhere.

    Args:
        table: the table.
        keys: the keys whose values name files.
        directory: where a relative file is searched before the current directory.
    """
    content = dict(table)
    for key in keys:
        places = [place for place in (directory, Path()) if place is not None]
        found = [place / str(content.get(key)) for place in places if key in content]
        first = next((path for path in found if path.is_file()), None)
        if first is not None:
            content[key] = str(first.absolute())
    return content
