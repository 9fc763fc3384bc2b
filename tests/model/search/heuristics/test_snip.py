"""SNIP, and the random B that it needs, against the formula in plain tensors."""

import pytest
import torch

from configs.runtime import kinds
from model.search.saliency import measure, random_b
from tests.model.search.heuristics.scene import batch_gradients, by_hand, scene

KIND = kinds.load(kinds.HEURISTICS, "snip")


def test_snip_is_the_size_of_the_masks_gradients():
    """The definition: masks of ones on A and B, and the gradients of the summed loss at the masks."""
    probe = scene()
    factors, _ = batch_gradients(probe)
    masks = {
        key: tuple(torch.ones_like(t, requires_grad=True) for t in pair) for key, pair in factors.items()
    }
    masked = {key: tuple(m * t.detach() for m, t in zip(masks[key], pair)) for key, pair in factors.items()}
    total = sum(
        by_hand(probe, probe.network.embedding(b["input_ids"]), masked).square().mean() for b in probe.batches
    )
    total.backward()
    found = measure(KIND, probe)
    for key, (a, b) in masks.items():
        assert found[key] == pytest.approx(float(a.grad.abs().sum() + b.grad.abs().sum()), rel=1e-8)


def test_snip_is_exactly_zero_where_b_is_zero():
    probe = scene()
    with torch.no_grad():
        for attachment in probe.attachments.values():
            attachment.adapter.B.zero_()
    assert set(measure(KIND, probe).values()) == {0.0}


def test_random_b_is_drawn_from_the_seed_and_taken_back():
    probe = scene()
    with torch.no_grad():
        for attachment in probe.attachments.values():
            attachment.adapter.B.zero_()
    first, again, other = (measure(KIND, probe, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(score > 0 for score in first.values())
    assert not any(attachment.adapter.B.any() for attachment in probe.attachments.values())


def test_random_b_leaves_what_does_not_train():
    probe, seen = scene(), []
    one, two = probe.attachments.values()
    one.adapter.B.requires_grad_(False)
    kept = one.adapter.B.clone(), two.adapter.B.clone()
    with random_b(probe.attachments, 1):
        seen += [one.adapter.B.clone(), two.adapter.B.clone()]
    assert torch.equal(seen[0], kept[0])
    assert not torch.equal(seen[1], kept[1])
    assert torch.equal(two.adapter.B, kept[1])
