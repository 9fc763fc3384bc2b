"""What makes two runs the same experiment: config.toml without the seed and what only names a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli

from configs.runtime.faults import InputFault
from configs.runtime.files import sha256

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
        return tomli.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputFault(f"{path}: not valid TOML: {error}") from None


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
