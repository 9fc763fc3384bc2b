"""Scoring with random numbers in place of what starts at zero."""

import pytest
import torch
from torch import nn

from model.injection.linear_attachment import LinearAttachment
from model.search.saliency import random_b
from model.site import Site, SiteKey
from tests.support.rank_gated import RankGated

KEY = SiteKey(0, "w1")


def _attached():
    return {KEY: LinearAttachment(Site(KEY, "w1", 3, 3), nn.Linear(3, 3), RankGated(3))}


def test_what_starts_at_zero_is_what_the_kind_declares_whatever_its_name():
    attachments = _attached()
    adapter, x = attachments[KEY].adapter, torch.ones(3)
    before = {name: factor.detach().clone() for name, factor in adapter.factors().items()}
    with random_b(attachments, seed=1):
        assert torch.equal(adapter.B, before["B"])
        assert torch.equal(adapter.A, before["A"])
        assert adapter.gate.all()
        assert adapter(x).any()
    assert not adapter.gate.any()


def test_what_does_not_train_was_loaded_and_stays():
    attachments = _attached()
    attachments[KEY].adapter.gate.requires_grad_(False)
    with random_b(attachments, seed=1):
        assert not attachments[KEY].adapter.gate.any()


def test_an_error_while_scoring_gives_the_zeros_back():
    attachments = _attached()
    with pytest.raises(RuntimeError), random_b(attachments, seed=1):
        raise RuntimeError
    assert not attachments[KEY].adapter.gate.any()
