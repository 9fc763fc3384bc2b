"""Shard a network's frozen weights over the processes of a run; each layer is gathered while it computes.

What trains (adapters, a head) stays whole in every process and its gradients are averaged by DDP, so that a
checkpoint is the one of any other run. Every forward pass gathers, so all processes must make equally many:
`synchronised_forwards`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


@runtime_checkable
class AdaptedModule(Protocol):
    """What strategies and callbacks here need of a LightningModule.

    Args:
        network: the host.
        adapters: the attachments by site; empty for full fine-tuning.
    """

    network: nn.Module
    adapters: nn.ModuleDict


def network_of(module: L.LightningModule | None) -> nn.Module:
    """Return the network of a learner."""
    assert isinstance(module, AdaptedModule), "a run has learners that hold a network"
    return module.network


class TrainedOnlyDDP(DDPStrategy):
    """DDP over the parameters that train; frozen weights, which every process has loaded, are not sent."""

    def model_to_device(self) -> None:
        """Exclude frozen parameters from DDP, then move the model to the device."""
        assert self.model is not None, "Lightning connects the model before it moves it"
        ignored = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, ignored)
        super().model_to_device()


class ShardedBaseDDP(TrainedOnlyDDP):
    """DDP over what trains, fully sharded data parallelism over the frozen weights of the layers.

    Embeddings, output layer and all else outside the layers stay whole.

    Args:
        layers: the layers of the network that is trained.
        ddp: arguments of Lightning's DDPStrategy.
    """

    def __init__(self, layers: Sequence[nn.Module], **ddp: Any) -> None:
        super().__init__(**ddp)
        self._layers = layers

    def model_to_device(self) -> None:
        """Shard layer by layer, so that a device never holds more than one whole one, then move the rest."""
        network = network_of(self.lightning_module)
        if not is_sharded(network):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            shard(network, self._layers, mesh)
        super().model_to_device()

    def teardown(self) -> None:
        """Stay on the device: shards can only be gathered there, and the export still needs them."""
        module = self.lightning_module
        super().teardown()
        if module is not None and is_sharded(network_of(module)):
            module.to(self.root_device)


def shard(network: nn.Module, layers: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Split the frozen weights of the layers over the mesh's processes.

    Args:
        network: the host; its state-dict keys stay, the layers' weights become shards.
        layers: its layers.
        mesh: one-dimensional.
    """
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p.requires_grad})
    inner = {p for layer in layers for p in layer.parameters()}
    # The root holds no weights; it lets the layers share their streams and prefetch each other.
    fully_shard(network, mesh=mesh, ignored_params={p for p in network.parameters() if p not in inner})


def is_sharded(network: nn.Module) -> bool:
    """Return whether each process holds a part of the weights only, by `shard` or by DeepSpeed's stage 3."""
    return isinstance(network, FSDPModule) or any(hasattr(p, "ds_id") for p in network.parameters())


@contextmanager
def synchronised_forwards(network: nn.Module) -> Iterator[None]:
    """Let processes make different numbers of forward passes: one that is done joins the others' passes.

    Before each pass the processes exchange which of them compute; those that left the body make a small pass
    along with the rest until none has any left. A network that is not sharded is not changed.

    Args:
        network: the host; in the body all forward passes are without gradients.
    """
    if not is_sharded(network):
        yield
        return
    device = next(network.parameters()).device

    def announce(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # a value would replace the inputs
        _count_computing(True, device)

    hook = network.register_forward_pre_hook(announce, prepend=True)
    try:
        yield
    finally:
        hook.remove()
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    while int(_count_computing(False, device)):
        with torch.no_grad():
            network(input_ids=token, attention_mask=torch.ones_like(token))


def _count_computing(computes: bool, device: torch.device) -> Tensor:
    """Return how many processes are about to make a forward pass; who computes need not wait for it."""
    count = torch.tensor(int(computes), device=device)
    torch.distributed.all_reduce(count)
    return count


class SynchronisedEvaluation(L.Callback):
    """Evaluate a sharded network on processes that differ in their numbers of batches and answer lengths."""

    def __init__(self) -> None:
        self._forwards: AbstractContextManager[None] | None = None

    def _start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._forwards = synchronised_forwards(network_of(pl_module))
        self._forwards.__enter__()

    def _end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._forwards is not None:
            self._forwards.__exit__(None, None, None)
            self._forwards = None

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = _end
