"""What makes two runs the same experiment: config.toml without the seed and what only names a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from configs.runtime.faults import InputFault
from configs.runtime.files import read_regular, sha256

PLANS = {"lora_config": "lora.toml", "shortcut_config": "shortcut.toml"}
"""Option that names a plan -> its copy in a run directory; every module takes the names from here."""
APART = ("seed", "seeds", "project", "project_dir", "num_workers", "log_level", "print_config", "dry_run")
"""Options in which two runs of one experiment may differ."""


def recorded(run: Path) -> dict[str, Any] | None:
    """Return a run's config.toml, or None if it has none.

    Raises:
        InputFault: when it is not valid TOML.
    """
    path = run / "config.toml"
    try:
        return tomli.loads(read_regular(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputFault(f"{path}: not valid TOML: {error}") from None


def file_digests(run: Path) -> dict[str, str]:
    """Return the SHA-256 of config.toml and of each plan that a run directory has."""
    paths = (run / name for name in ("config.toml", *PLANS.values()))
    return {path.name: sha256(path) for path in paths if path.is_file()}


def edited_files(run: Path) -> list[str]:
    """Return a fault for each file of a run that differs from run.toml; earlier runs have no record.

    Raises:
        InputFault: when run.toml is not valid TOML.
    """
    path = run / "run.toml"
    try:
        recorded_digests = tomli.loads(read_regular(path).decode("utf-8-sig")).get("files", {})
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise InputFault(f"{path}: not valid TOML: {error}") from None
    found = file_digests(run)
    if not isinstance(recorded_digests, dict):
        return [f"{path}: files: must be a table"]
    faults = []
    for name, digest in recorded_digests.items():
        if found.get(name) != digest:
            what = "was edited after" if name in found else "is missing since"
            faults.append(f"{run / name}: {what} the start of the run, as {path.name} records; restore it")
    return faults


def experiment(config: Mapping[str, Any], run: Path | None = None) -> dict[str, Any]:
    """Return what the runs of one experiment share: every other option, and the digests of the plans.

    Args:
        config: the content of a config.toml.
        run: the run directory with copies of the plans; None: the plans are the files that `config` names.
    """
    shared = {name: value for name, value in config.items() if name not in APART}
    for name, copy in PLANS.items():
        if name in shared:
            path = Path(shared[name]) if run is None else run / copy
            shared[name] = sha256(path) if path.is_file() else None
    return shared
