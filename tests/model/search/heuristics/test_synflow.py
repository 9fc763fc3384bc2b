"""SYNFLOW against its formula in plain tensors."""

import pytest
import torch

from configs.runtime import kinds
from model.search.saliency import measure
from tests.model.search.heuristics.scene import by_hand, plain_factors, scene

KIND = kinds.load(kinds.HEURISTICS, "synflow")


@pytest.mark.parametrize("objective", ["sum", "loss"])
def test_it_is_weight_times_gradient_of_the_flow_through_sizes(objective):
    probe = scene(options=KIND.options(objective))
    sizes = {
        key: tuple(tensor.detach().abs().requires_grad_() for tensor in pair)
        for key, pair in plain_factors(probe).items()
    }
    weights = [linear.weight.abs() for linear in (probe.network.first, probe.network.second)]
    output = by_hand(probe, torch.ones(2, 2, 5, dtype=torch.float64), sizes, weights)
    (output.sum() if objective == "sum" else output.square().mean()).backward()
    found = measure(KIND, probe)
    for key, (a, b) in sizes.items():
        expected = float((a * a.grad).abs().sum().detach() + (b * b.grad).abs().sum().detach())
        assert found[key] == pytest.approx(expected, rel=1e-8)


def test_only_the_shape_and_the_mask_of_the_first_batch_count():
    probe = scene(options=KIND.options())
    before = measure(KIND, probe)
    probe.batches[0]["input_ids"].fill_(7)
    probe.batches[1]["input_ids"].fill_(8)
    assert measure(KIND, probe) == before


def test_minus_zero_and_signs_are_as_before():
    probe = scene(options=KIND.options())
    factor = next(iter(probe.attachments.values())).adapter.A
    with torch.no_grad():
        factor[0, 0] = -0.0
    before = factor.detach().clone()
    measure(KIND, probe)
    assert torch.equal(torch.signbit(factor), torch.signbit(before))
    assert torch.equal(factor, before)


def test_double_precision_survives_where_single_would_underflow():
    probe = scene(options=KIND.options())
    with torch.no_grad():
        for attachment in probe.attachments.values():
            for factor in attachment.adapter.parameters():
                factor.mul_(1e-30)
    assert all(score > 0 for score in measure(KIND, probe).values())
