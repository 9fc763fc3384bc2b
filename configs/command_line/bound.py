"""A checked command line: the options, where each value came from, the tables that users write."""

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
        action: the word ACTION.
        options: effective options, all paths absolute.
        sources: field of `Options` -> `default`, `adapter`, `run`, a TOML file's path, or `command line`.
        tables: free TOML tables by name, e.g. `data`.
        table_files: the last file that wrote into each table.
        notes: lines to show once: options that are given but not used.
    """

    action: str
    options: Options
    sources: dict[str, str]
    tables: dict[str, Any]
    table_files: dict[str, Path]
    notes: tuple[str, ...]

    def is_given(self, name: str) -> bool:
        """Tell whether an option has a value that is not the built-in default's."""
        return self.sources[name] != "default"

    def with_table(self, name: str, content: Mapping[str, Any]) -> "Bound":
        """Return it with another content of a free table; an empty one is left as it was."""
        return dataclasses.replace(self, tables={**self.tables, name: dict(content)}) if content else self


def absolute(table: Mapping[str, Any], keys: Sequence[str], directory: Path | None) -> dict[str, Any]:
    """Return a table with the files it names made absolute, so that its record works from anywhere.

    Args:
        table: the table.
        keys: which of its keys name files.
        directory: where a relative file is looked for before the current directory.
    """
    content = dict(table)
    for key in keys:
        places = [place for place in (directory, Path()) if place is not None]
        found = [place / str(content.get(key)) for place in places if key in content]
        first = next((path for path in found if path.is_file()), None)
        if first is not None:
            content[key] = str(first.absolute())
    return content
