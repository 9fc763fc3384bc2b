"""Reading a plan from its text, with a fixed list of methods."""

import pytest

from configs.runtime import kinds
from model.plan.lora_toml import read_plan
from tests.support.plans import METHODS


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    monkeypatch.setattr(kinds, "names", {kinds.ADAPTERS: METHODS}.__getitem__)


@pytest.fixture
def read(tmp_path):
    def make(text):
        path = tmp_path / "plan.toml"
        path.write_text(text)
        return read_plan(path)

    return make
