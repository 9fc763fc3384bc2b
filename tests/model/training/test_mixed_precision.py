"""Frozen linears stored in autocast's type give autocast's own losses, and come back untouched."""

import pytest
import torch
from torch import nn

from model.adapters.methods.lora import ADAPTER, Lora
from model.injection.linear_attachment import LinearAttachment
from model.site import Site, SiteKey
from model.training.mixed_precision import frozen_weights_in_compute_dtype


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.q_proj = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.table.weight
        self.score = nn.Linear(8, 2)

    def forward(self, ids):
        hidden = self.table(ids) + self.q_proj(self.table(ids))
        return self.head(hidden), self.score(hidden)


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Tied().requires_grad_(False)
    made.score.requires_grad_(True)
    return made


def adapted(network):
    adapter = Lora(8, 8, rank=2, alpha=4.0, dropout=0.0)
    for factor in adapter.parameters():
        nn.init.normal_(factor)
    site = Site(SiteKey(0, "q_proj"), "q_proj", 8, 8)
    LinearAttachment(site, network.q_proj, adapter, ADAPTER.fused_forward)
    return adapter


def loss_and_gradients(network, adapter):
    with torch.autocast("cpu", torch.bfloat16):
        logits, scores = network(torch.arange(12).view(3, 4))
    loss = logits.float().square().mean() + scores.float().square().mean()
    trained = [*adapter.parameters(), *network.score.parameters()]
    return [loss, *torch.autograd.grad(loss, trained)]


def test_losses_and_gradients_are_those_of_autocast(network):
    adapter = adapted(network)
    expected = loss_and_gradients(network, adapter)
    with frozen_weights_in_compute_dtype(network, "bf16-mixed") as count:
        found = loss_and_gradients(network, adapter)
    assert count == 2
    for ours, theirs in zip(found, expected):
        assert torch.equal(ours, theirs)


def test_what_trains_and_what_is_tied_keeps_its_type(network):
    with frozen_weights_in_compute_dtype(network, "bf16-mixed"):
        assert network.q_proj.weight.dtype == network.head.weight.dtype == torch.bfloat16
        assert network.table.weight.dtype == network.score.weight.dtype == torch.float32


def test_everything_is_restored_even_after_a_fault(network):
    before = dict(network.named_parameters(remove_duplicate=False))
    with pytest.raises(RuntimeError), frozen_weights_in_compute_dtype(network, "bf16-mixed"):
        raise RuntimeError
    after = dict(network.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter for name, parameter in before.items())
    assert network.head.weight is network.table.weight


def test_full_precision_changes_nothing(network):
    with frozen_weights_in_compute_dtype(network, "32-true") as count:
        assert count == 0
        assert network.q_proj.weight.dtype == torch.float32
