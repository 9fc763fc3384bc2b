"""Trainable parameters are counted once, by what they belong to."""

import pytest
import torch
from torch import nn

from model.injection.linear_attachment import LinearAttachment
from model.site import Site, SiteKey
from model.training.trainable_counts import is_within_head, trainable_counts
from tests.support.rank_gated import Blended, RankGated


def test_a_name_below_a_head_module_belongs_to_the_head():
    assert is_within_head("classifier.dense.weight", ("classifier",))
    assert not is_within_head("classifier_norm.weight", ("classifier",))
    assert not is_within_head("model.classifier.weight", ("classifier",))
    assert not is_within_head("classifier.weight", ())


def test_what_requires_a_gradient_counts_once():
    network = nn.ModuleDict({"base": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "head": nn.Linear(3, 2)})
    network.base.requires_grad_(False)
    shared = nn.Parameter(torch.zeros(5))
    attachments = {}
    for layer in range(2):
        key = SiteKey(layer, "gate")
        attachments[key] = LinearAttachment(Site(key, "base", 3, 3), network.base, Blended(3))
        attachments[key].adapter.register_parameter("shared", shared)
    one = sum(p.numel() for p in Blended(3).parameters())
    counts = trainable_counts(network, attachments, ("head",))
    assert counts == {"adapters": 2 * (one - 3) + 5, "router_or_gates": 2 * 3, "head": 8, "other": 6}
    attachments[key].adapter.requires_grad_(False)
    assert trainable_counts(network, attachments, ())["adapters"] == one - 3


@pytest.mark.parametrize(("kind", "routers"), [(RankGated, 0), (Blended, 3)])
def test_routers_are_counted_as_their_kind_declares_them(kind, routers):
    network, key = nn.Linear(3, 3).requires_grad_(False), SiteKey(0, "gate")
    attachment = LinearAttachment(Site(key, "gate", 3, 3), network, kind(3))
    counted = trainable_counts(network, {key: attachment}, ())
    assert (counted["adapters"], counted["router_or_gates"]) == (3 * 2 + 3 * 2 + 2, routers)
