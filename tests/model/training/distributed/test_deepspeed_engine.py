"""A module in DeepSpeed's hands trains as it does alone, and comes back as it went."""

import copy
import multiprocessing
import os
import socket
from importlib.util import find_spec

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from transformers import AutoModel

from configs.runtime import kinds
from model.injection.attach import attach, locate
from model.network.family import dimensions
from model.plan.lora_toml import AdapterConfig
from tests.support.tiny import tiny_network

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
ENTRY = AdapterConfig(rank=3, alpha=6.0, dropout=0.0, adapter_name="default", disabled=False, init=False)
STAGES = {"2": {"stage": 2}, "3": {"stage": 3}, "3 offload": {"stage": 3, "offload": True}}
CLIP = 0.01


class Root(nn.Module):
    """Network, adapters and a head that trains, as a learner holds them."""

    def __init__(self, family):
        super().__init__()
        row = kinds.load(kinds.FAMILIES, family)
        self.network = tiny_network(row, AutoModel).requires_grad_(False).train()
        prefix, trunk = row.layer.split(".", 1)  # a network without head has no prefix
        count = dimensions(self.network.config).layers
        self.__dict__["layers"] = [self.network.get_submodule(trunk.format(layer=n)) for n in range(count)]
        host = nn.Module()
        host.add_module(prefix, self.network)
        sites = locate(host, row, count)
        attachments = attach(host, sites, dict.fromkeys(sites, ENTRY), 0, "here")
        self.__dict__["linear"] = next(iter(attachments.values())).linear
        self.adapters = nn.ModuleDict({str(key): one for key, one in attachments.items()})
        torch.manual_seed(0)
        self.head = nn.Linear(self.network.config.hidden_size, 3)

    def forward(self, tokens):
        """Return a loss."""
        torch.manual_seed(0)  # hosts drop
        output = self.head(self.network(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0])
        return functional.cross_entropy(output.flatten(0, 1), tokens.flatten() % 3)

    def trained(self):
        return [p for p in self.parameters() if p.requires_grad]


def _optimizer(root):
    vectors = [p for p in root.trained() if p.ndim < 2]
    groups = [{"params": [p for p in root.trained() if p.ndim > 1], "weight_decay": 0.1}]
    return torch.optim.AdamW([*groups, {"params": vectors, "weight_decay": 0.0}], lr=0.01, fused=True)


def _batches(rank):
    """Return three updates, the second one of two batches."""
    generator = torch.Generator().manual_seed(rank)
    return [[torch.randint(5, 200, (2, 9), generator=generator) for _ in range(count)] for count in (1, 2, 1)]


def _alone(root, rank, world):
    """Train with averaged gradients; return every loss and the optimiser."""
    optimizer, losses = _optimizer(root), []
    for window in _batches(rank):
        optimizer.zero_grad()
        for tokens in window:
            loss = root(tokens)
            (loss / len(window)).backward()
            losses.append(loss.detach())
        for parameter in root.trained():
            distributed.all_reduce(parameter.grad)
            parameter.grad /= world
        nn.utils.clip_grad_norm_(root.trained(), CLIP)
        optimizer.step()
    return losses, optimizer


def _shared(root, rank, words):
    """Train through the engine; return every loss, the module in its hands, and whole states."""
    from model.training.distributed.deepspeed_engine import ZeroConfig, partition

    optimizer, losses = _optimizer(root), []
    trained, before = root.trained(), torch.get_rng_state()
    config = ZeroConfig(clip=CLIP, **words)
    shares = partition(root, config, torch.device("cpu"), root.layers, root.adapters, optimizer)
    assert torch.equal(before, torch.get_rng_state())
    engine = shares.engine
    for window in _batches(rank):
        for place, tokens in enumerate(window):
            engine.set_gradient_accumulation_boundary(place == len(window) - 1)
            loss = engine(tokens)
            engine.backward(loss / len(window), scale_wrt_gas=False)
            losses.append(loss.detach())
        engine.step()
        assert engine.was_step_applied()
    shares.link_optimizer_state()
    states = [{key: shares.optimizer_state(p, key) for key in ("exp_avg", "exp_avg_sq")} for p in trained]
    return losses, shares, states


def _compare(family, words, rank, world):
    """Raise where the shares' training is not the whole module's."""
    root = Root(family)
    alone, keys = copy.deepcopy(root), list(root.state_dict())
    frozen = {name: p.clone() for name, p in root.named_parameters() if not p.requires_grad}
    expected, optimizer = _alone(alone, rank, world)
    plain = functional.linear
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in root.modules()]
    found, shares, states = _shared(root, rank, words)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if words["stage"] == 3:
        weight = root.linear.weight
        assert weight.numel() == 0
        assert weight.ds_tensor.numel() * world == weight.ds_numel
    for parameter, other, state in zip(root.trained(), alone.trained(), states, strict=True):
        whole = shares.full_parameter(parameter)
        torch.testing.assert_close(whole, other.detach(), rtol=1e-4, atol=1e-6)
        for key, value in state.items():
            wanted = optimizer.state[other][key]
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-7)
            shares.set_optimizer_state(parameter, key, torch.full_like(wanted, 2.0))
            assert torch.equal(shares.optimizer_state(parameter, key), torch.full_like(wanted, 2.0))
    shares.restore()
    assert list(root.state_dict()) == keys
    assert all(torch.equal(root.get_parameter(name), tensor) for name, tensor in frozen.items())
    assert functional.linear is plain
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in root.modules()] == hooks
    assert not any(name.startswith("ds_") for part in root.modules() for name in vars(part))
    assert not any(vars(p) for p in root.parameters())
    for parameter, other in zip(root.trained(), alone.trained(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)


def _process(rank, world, port, families, stages):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    try:
        for family in families:
            for stage in stages:
                _compare(family, STAGES[stage], rank, world)
    finally:
        distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("families", "stages"),
    [(("llama",), tuple(STAGES)), (kinds.names(kinds.FAMILIES), ("3",))],
    ids=["every stage", "every family"],
)
def test_two_processes_train_as_one_without_shares_does(families, stages):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.support.killed"])
    torch.multiprocessing.start_processes(
        _process, args=(2, port, families, stages), nprocs=2, start_method="forkserver"
    )


@pytest.mark.parametrize("words", STAGES.values(), ids=STAGES)
def test_the_configuration_is_one_deepspeed_reads(words):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    from model.training.distributed.deepspeed_engine import ZeroConfig

    made = ZeroConfig(clip=0.5, precision="bf16-mixed", **words).deepspeed_config()
    zero = DeepSpeedZeroConfig(**made["zero_optimization"])
    assert zero.stage == words["stage"]
    assert made["gradient_clipping"] == 0.5
    assert made["torch_autocast"]["dtype"] == "bfloat16"
    assert "torch_autocast" not in ZeroConfig(**words).deepspeed_config()
    offloaded = [str(part.device) for part in (zero.offload_param, zero.offload_optimizer) if part]
    assert offloaded == (["cpu", "cpu"] if words.get("offload") else [])
