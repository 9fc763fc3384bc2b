"""Tiny hosts that no test changes."""

import pytest

from tests.support.backbones import FAMILIES
from tests.support.tiny import save_host


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    return {family: save_host(family, root / family) for family in FAMILIES}
