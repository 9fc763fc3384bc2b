"""The loss under a frozen head is the cross-entropy of whole logits, value and gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM

from configs.runtime import kinds
from configs.schema.batch_keys import IGNORE_INDEX
from model.training import objective
from model.training.objective import LanguageModeling, frozen_head_loss, inputs
from tests.support.tiny import tiny_network


def parts(*, bias, dtype=torch.float64):
    torch.manual_seed(0)
    head = nn.Linear(6, 11, bias=bias, dtype=dtype).requires_grad_(False)
    hidden = torch.randn(7, 6, dtype=dtype, requires_grad=True)
    return hidden, head, torch.randint(0, 11, (7,))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("at_once", [1, 33, 2**22])
def test_value_and_gradient_are_those_of_whole_logits(monkeypatch, bias, at_once):
    monkeypatch.setattr(objective, "_LOGITS_AT_ONCE", at_once)
    hidden, head, targets = parts(bias=bias)
    ours, theirs = frozen_head_loss(hidden, head, targets), F.cross_entropy(head(hidden), targets)
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(3 * loss, hidden)[0] for loss in (ours, theirs))
    torch.testing.assert_close(found, expected)


def test_under_autocast_the_value_is_that_of_autocast():
    hidden, head, targets = parts(bias=False, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = frozen_head_loss(hidden, head, targets)
        theirs = F.cross_entropy(head(hidden).float(), targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(loss, hidden)[0] for loss in (ours, theirs))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-3)


def test_without_gradients_nothing_is_kept():
    hidden, head, targets = parts(bias=False)
    with torch.no_grad():
        assert not frozen_head_loss(hidden, head, targets).requires_grad


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_frozen_network_s_loss_is_the_stock_one_and_makes_no_logits(family):
    network = tiny_network(kinds.load(kinds.FAMILIES, family), AutoModelForCausalLM).double()
    network.requires_grad_(False)
    norm = next(p for name, p in network.named_parameters() if "norm" in name).requires_grad_(True)
    ids = torch.randint(5, 261, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :3] = IGNORE_INDEX
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    sizes = []
    head = network.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, given, output: sizes.append(output.numel()))
    ours = LanguageModeling().loss(network, batch)
    handle.remove()
    assert sizes == [0]
    logits = network(**inputs(batch)).logits[:, :-1]
    theirs = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(loss, norm)[0] for loss in (ours, theirs))
    torch.testing.assert_close(found, expected)
