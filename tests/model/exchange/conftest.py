"""Hosts, and an adapter exported from one, that the tests of both directions share."""

import pytest

from model.injection.attach import attach, locate
from tests.support.exported import HOSTS, adapter_config, export_adapter, load_host
from tests.support.tiny import save_host


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    return {name: save_host(family, root / name, **more) for name, (family, more) in HOSTS.items()}


@pytest.fixture(scope="module")
def exported(hosts, tmp_path_factory):
    """Export an OPT classifier with two adapted roles and return its directory."""
    directory = tmp_path_factory.mktemp("exported") / "adapter"
    backbone = load_host(hosts["opt"])
    sites = locate(backbone.network, backbone.family, 3)
    configs = {key: adapter_config() for key in sites if key.role in ("q_proj", "w2")}
    export_adapter(
        backbone, attach(backbone.network, sites, configs, 0, "p"), dict.fromkeys(configs, "lora"), directory
    )
    return directory
