"""Plans are written as TOML, and read back as they were."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.plan.adapter_config import AdapterConfig
from model.plan.attention_heads import head_configs, projection_config
from model.plan.resolution import resolve
from model.plan.toml_writer import plan_text
from model.site import SiteKey
from tests.support.plans import NO_GATE, SIZE

CONFIGS = st.builds(
    AdapterConfig,
    rank=st.integers(1, 64),
    alpha=st.floats(1e-3, 1e3),
    dropout=st.floats(0, 1, exclude_max=True),
    adapter_name=st.sampled_from(["default", "a b"]),
    disabled=st.just(False),
    importance=st.floats(-2, 2).filter(bool),
    init=st.booleans(),
    fan_in_fan_out=st.booleans(),
    method=st.sampled_from(["lora", "hydra"]),
    extra=st.sampled_from([{}, {"lora_num": 3}]),
)
KEYS = st.builds(SiteKey, st.integers(0, 1), st.sampled_from(NO_GATE))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, CONFIGS, min_size=1))
def test_a_written_plan_reads_back(read, sites):
    plan = read(plan_text(sites))
    assert resolve(plan, SIZE, NO_GATE).sites == sites


def test_a_written_plan_turns_off_what_it_does_not_name(read):
    plan = read(plan_text({SiteKey(1, "w2"): AdapterConfig(4, 8.0, 0.0, "a", disabled=False)}, "a"))
    assert (plan.granularity, plan.default.rank, plan.default.disabled) == ("layer", 0, True)
    assert list(plan.tables) == ["model_layer_1.w2"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.integers(0, 1), st.lists(CONFIGS, min_size=4, max_size=4), min_size=1), st.booleans()
)
def test_a_written_plan_of_heads_reads_back(read, layers, disabled):
    shared = {"dropout": 0.5, "method": "lora", "extra": {}}
    sites = {SiteKey(1, "w1"): AdapterConfig(1, 1.0, 0.0, "a", disabled=False)}
    for layer, heads in layers.items():
        parts = [replace(head, **shared, disabled=n % 2 == 1 or disabled) for n, head in enumerate(heads)]
        sites[SiteKey(layer, "q_proj")] = projection_config(parts)
    again = resolve(read(plan_text(sites)), SIZE, NO_GATE).sites
    assert {key: (e.rank, e.is_on) for key, e in again.items()} == {
        key: (e.rank, e.is_on) for key, e in sites.items()
    }
    for key, config in sites.items():
        for one, other in zip(head_configs(config), head_configs(again[key]), strict=True):
            assert (one.rank, one.alpha, one.init) == (other.rank, other.alpha, other.init)
            assert one.importance == pytest.approx(other.importance)


def test_a_written_plan_is_of_one_granularity():
    whole, by_head = (AdapterConfig(2, 1.0, 0.0, "a", disabled=False) for _ in range(2))
    sites = {SiteKey(0, "q_proj"): whole, SiteKey(0, "k_proj"): projection_config([by_head])}
    with pytest.raises(ValueError, match="projections by head or whole projections"):
        plan_text(sites)
