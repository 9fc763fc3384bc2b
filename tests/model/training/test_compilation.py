"""Compiled layers compute what the plain ones do and leave no trace."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.schema.options import Options
from model.injection.attach import attach, locate
from model.network.family import dimensions
from model.plan.adapter_config import AdapterConfig
from model.training.compilation import check_compiler, compiled
from tests.support.tiny import tiny_network

ENTRY = AdapterConfig(rank=3, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)


def _network():
    family = kinds.load(kinds.FAMILIES, "llama")
    network = tiny_network(family, AutoModelForCausalLM, num_hidden_layers=1).requires_grad_(False).train()
    sites = locate(network, family, dimensions(network.config).layers)
    return network, attach(network, sites, dict.fromkeys(sites, ENTRY), 0, "here")


def _step(network, adapters, length):
    tokens = torch.randint(5, 200, (2, length), generator=torch.Generator().manual_seed(length))
    adapters.zero_grad()
    loss = network(input_ids=tokens).logits.square().mean()
    loss.backward()
    return [loss.detach(), *[parameter.grad.clone() for parameter in adapters.parameters()]]


def test_compilation_is_undone_at_the_end():
    network, attachments = _network()
    keys = list(network.state_dict())
    layers = list(network.model.layers)
    with compiled(layers, attachments.values()):
        assert list(network.state_dict()) == keys
        assert all(layer._compiled_call_impl is not None for layer in layers)
    assert all(layer._compiled_call_impl is None for layer in layers)
    for attachment in attachments.values():
        assert attachment.linear.__dict__["forward"] == attachment.adapted_forward


@pytest.mark.slow
def test_compiled_steps_are_the_plain_ones_at_every_length():
    network, attachments = _network()
    adapters = nn.ModuleList(attachments.values())
    expected = [_step(network, adapters, length) for length in (9, 12, 20)]
    with compiled(list(network.model.layers), attachments.values()):
        for length, wanted in zip((9, 12, 20), expected):
            first, second = _step(network, adapters, length), _step(network, adapters, length)
            for found, again, value in zip(first, second, wanted, strict=True):
                assert torch.equal(found, again)
                torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)


def test_a_machine_without_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputFault, match=r"--compile: needs the C\+\+ compiler no-such-compiler"):
        check_compiler(Options(compile=True, accelerator="cpu"))
    check_compiler(Options())
