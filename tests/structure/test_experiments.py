"""Every shipped run configuration binds, and has a header that describes it."""

import re
from pathlib import Path

import pytest

from configs.command_line.cli import parse

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted([ROOT / "configs" / "quickstart.toml", *(ROOT / "configs" / "experiments").rglob("*.toml")])


def _action(path):
    """Return the action that the header's command names."""
    return re.search(r"^# Command: .*python -m main (\S+)", path.read_text(), re.M)[1]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_binds(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    bound = parse([_action(path), "--config", str(path)])
    assert bound.options.lora_config.is_file()
    assert not bound.notes


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_has_its_header(path):
    header = path.read_text().split("model =")[0]
    assert all(f"# {word}: " in header for word in ("Expected", "Cost", "Command"))
