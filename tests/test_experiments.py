"""Every shipped run configuration binds, and says what it is."""

from pathlib import Path

import pytest

from configs.cli import parse

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted([ROOT / "configs" / "quickstart.toml", *(ROOT / "configs" / "experiments").rglob("*.toml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_binds(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    bound = parse(["train", "--config", str(path)])
    assert bound.options.lora_config.is_file()
    assert not bound.notes


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_configuration_has_its_header(path):
    header = path.read_text().split("model =")[0]
    assert all(f"# {word}: " in header for word in ("Expected", "Cost", "Command"))
