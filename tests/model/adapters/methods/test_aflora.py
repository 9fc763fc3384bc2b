"""`method = "aflora"`: what its keys build."""

import pytest
import torch

from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import PlannedSite
from model.adapters.methods.aflora import ADAPTER, AfloraOptions
from model.plan.adapter_config import AdapterConfig
from model.site import Site, SiteKey


def _built(d_in=6, d_out=5, *, init=True, **keys):
    config = AdapterConfig(rank=2, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=init)
    key = SiteKey(0, "w1")
    options = bind(ADAPTER.options, keys, "plan")
    return ADAPTER.build([PlannedSite(Site(key, "w1", d_in, d_out), config, options)], 3)[key]


def _trains(adapter):
    return [name for name, p in adapter.named_parameters() if p.requires_grad]


@pytest.mark.parametrize(
    ("keys", "of_a_square", "of_a_rectangle"),
    [
        ({}, ["d", "b"], ["A", "B", "d", "b"]),
        ({"uv_rule": "rectangular"}, ["d", "b"], ["A", "B", "d", "b"]),
        ({"uv_rule": "all"}, ["A", "B", "d", "b"], ["A", "B", "d", "b"]),
        ({"uv_rule": "none"}, ["d", "b"], ["d", "b"]),
    ],
)
def test_which_matrices_begin_trainable(keys, of_a_square, of_a_rectangle):
    assert _trains(_built(6, 6, **keys)) == of_a_square
    assert _trains(_built(6, 5, **keys)) == of_a_rectangle


def test_scaling():
    assert _built().scale == 1.0
    assert _built(scaling="alpha_over_r").scale == 3.0
    assert ADAPTER.keys(_built()) == {"scaling": "none", "uv_rule": "rectangular"}


def test_b_is_drawn_where_the_start_is_no_zero_delta():
    drawn, plain = _built(init=False), _built()
    assert drawn.b.unique().numel() == 5
    assert not plain.b.any()
    assert torch.equal(drawn.A, plain.A)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"scaling": "alpha"}, "plan: scaling: .*one of alpha_over_r, none"),
        ({"uv_rule": "rectangle"}, "plan: uv_rule: .*did you mean 'rectangular'"),
        ({"uv_rules": "all"}, "plan: unknown key 'uv_rules'; did you mean 'uv_rule'"),
    ],
)
def test_wrong_keys_are_refused(keys, words):
    with pytest.raises(InputFault, match=words):
        bind(AfloraOptions, keys, "plan")
