"""Adapters that cannot fit are refused before they are built."""

from types import SimpleNamespace

import pytest

from configs.runtime.faults import InputFault
from model.assembly.memory import memory_faults, require_memory, site_bytes
from model.site import SiteKey
from tests.support.exported import adapter_config

KEYS = [SiteKey(layer, "q_proj") for layer in range(3)]
SITES = {key: SimpleNamespace(in_features=10, out_features=6) for key in KEYS}


def test_plain_loras_add_up_and_others_may_share():
    plain = dict.fromkeys(KEYS, adapter_config(rank=2))
    assert site_bytes(SITES[KEYS[0]], plain[KEYS[0]]) == 4 * 4 * 2 * 16 == 512
    assert memory_faults(SITES, plain, 3 * 512) == []
    (fault,) = memory_faults(SITES, plain, 3 * 512 - 1)
    assert "the largest is layer_0/q_proj with r = 2" in fault
    assert memory_faults(SITES, dict.fromkeys(KEYS, adapter_config(rank=2, method="vera")), 512) == []
    assert memory_faults(SITES, {}, 0) == []


def test_an_impossible_rank_is_refused_by_name():
    with pytest.raises(
        InputFault, match="plan.toml: r: training the adapters needs at least .* GiB, this machine"
    ):
        require_memory(SITES, {KEYS[0]: adapter_config(rank=10**15)}, "plan.toml")
