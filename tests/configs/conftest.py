"""A command line that is right, for the tests to spoil."""

from pathlib import Path

import pytest

from configs.command_line.bound import Bound
from configs.command_line.cli import parse
from configs.runtime import kinds

FAMILIES = ("bert", "llama", "opt", "roberta")
TASKS = ("cola", "gsm8k", "local", "mrpc", "rte", "sst2")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Work in an empty directory, with fixed lists of kinds."""
    lists = {kinds.FAMILIES: FAMILIES, kinds.TASKS: TASKS, kinds.ADAPTERS: ("hydra", "lora")}
    names = kinds.names
    monkeypatch.setattr(kinds, "names", lambda registry: lists.get(registry) or names(registry))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.toml").write_text("")
    return tmp_path


@pytest.fixture
def bound(here):
    """Parse `train opt_lora mrpc --lora-config lora.toml` with further words."""

    def make(*words: str, action: str = "train") -> Bound:
        return parse([action, "opt_lora", "mrpc", "--lora-config", "lora.toml", *words])

    return make
