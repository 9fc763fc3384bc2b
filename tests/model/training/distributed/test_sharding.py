"""Sharded frozen weights: attachments, losses and gradients are those of the whole network."""

import multiprocessing
import os
import socket

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoModel

from configs.runtime import kinds
from model.injection.attach import attach, locate
from model.network.family import dimensions
from model.plan.adapter_config import AdapterConfig
from model.training.distributed.sharding import is_sharded, shard, synchronised_forwards
from tests.support.tiny import tiny_network

ENTRY = AdapterConfig(rank=3, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)


def _step(network, adapters, tokens):
    adapters.zero_grad()
    torch.manual_seed(0)  # hosts drop
    output = network(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
    # Weighted, because the mean square of a last norm's output is a constant.
    loss = (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(1))).mean()
    loss.backward()
    return [loss.detach(), *[p.grad.clone() for p in adapters.parameters()]]


def _compare(family, rank, world):
    """Raise where the sharded network's step is not the whole one's."""
    row = kinds.load(kinds.FAMILIES, family)
    network = tiny_network(row, AutoModel).requires_grad_(False).train()
    trunk = row.layer.split(".", 1)[1]  # a network without head has no prefix
    count = dimensions(network.config).layers
    layers = [network.get_submodule(trunk.format(layer=number)) for number in range(count)]
    host = nn.Module()
    host.add_module(row.layer.split(".", 1)[0], network)
    sites = locate(host, row, count)
    attachments = attach(host, sites, dict.fromkeys(sites, ENTRY), 0, "here")
    adapters = nn.ModuleList(attachments.values())
    tokens = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(rank))
    keys, expected = list(network.state_dict()), _step(network, adapters, tokens)
    assert max(float(gradient.abs().max()) for gradient in expected[1:]) > 1e-3
    shard(network, layers, init_device_mesh("cpu", (world,)))
    for checkpointing in (False, True):
        if checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        for found, wanted in zip(_step(network, adapters, tokens), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    linear = next(iter(attachments.values())).linear
    assert isinstance(linear.weight, DTensor)
    assert linear.weight.to_local().numel() * world == linear.weight.numel()
    assert list(network.state_dict()) == keys
    assert is_sharded(network)
    _unequal(network, tokens, rank)


def _unequal(network, tokens, rank):
    """The first process computes three times, the other one never: both get out, outputs are its own."""
    with torch.no_grad():
        expected = network.eval()(input_ids=tokens)[0]
        with synchronised_forwards(network):
            for _ in range(3 if rank == 0 else 0):
                torch.testing.assert_close(network(input_ids=tokens)[0], expected)
    distributed.barrier()


def _process(rank, world, port, families):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    try:
        for family in families:
            _compare(family, rank, world)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    "families",
    [("llama",), pytest.param(kinds.names(kinds.FAMILIES), marks=pytest.mark.slow)],
    ids=["one", "every"],
)
def test_two_processes_with_shards_compute_what_whole_networks_do(families):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.support.killed"])
    torch.multiprocessing.start_processes(
        _process, args=(2, port, families), nprocs=2, start_method="forkserver"
    )


def test_a_network_in_one_piece_is_left_alone():
    network = nn.Linear(2, 2)
    with synchronised_forwards(network):
        assert not network._forward_pre_hooks
    assert not is_sharded(network)
