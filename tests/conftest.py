"""Offline and repeatable surroundings for every test.

Heavy imports are inside the fixtures: pytest-xdist's first process reads this file too, and runs no test.
"""

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.runs import Ground

# The libraries read these when they are imported, which no test module has done yet.
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny networks gain nothing from threads, and sums stay in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what tests convert away from the user's cache."""
    monkeypatch.setenv("LORA_RESEARCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> "Ground":
    """Tiny hosts, plans and rows that the system tests share."""
    from tests.support.runs import Ground

    return Ground(tmp_path_factory.mktemp("ground"))
