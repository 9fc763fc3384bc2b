"""The program's version: that of the installation, or of the checkout it runs from."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import tomli

DISTRIBUTION = "lora-research"
_PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def program_version() -> str:
    """Return the version; a checkout's own file takes precedence over an installed one."""
    if _PROJECT.is_file():
        return str(tomli.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"])
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
