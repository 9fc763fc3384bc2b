"""Split a network's frozen weights over the processes of a run; each layer is gathered while it computes.

What trains (adapters, a head) stays whole in every process and is averaged by DDP, so that a checkpoint is
the one of any other run. Every forward pass gathers, so all processes must make equally many: `in_step`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard


class TrainedDDP(DDPStrategy):
    """DDP over what trains; frozen weights, which every process has loaded, are not sent."""

    def model_to_device(self) -> None:
        """Name what stays out of DDP's exchange, then move."""
        ignored = [name for name, p in self.model.named_parameters() if not p.requires_grad]
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, ignored)
        super().model_to_device()


class FrozenShards(TrainedDDP):
    """DDP over what trains, fully sharded data parallelism over the frozen weights of the layers.

    Embeddings, output layer and whatever else lies outside the layers stay whole.

    Args:
        layers: the layers of the network that is trained.
        ddp: arguments of Lightning's DDPStrategy.
    """

    def __init__(self, layers: Sequence[nn.Module], **ddp: Any) -> None:
        super().__init__(**ddp)
        self._layers = layers

    def model_to_device(self) -> None:
        """Shard layer by layer, so that a device never holds more than one whole one, then move the rest."""
        network = self.lightning_module.network
        if not is_sharded(network):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            shard(network, self._layers, mesh)
        super().model_to_device()

    def teardown(self) -> None:
        """Stay on the device: shards can be gathered there only, and the export still needs them."""
        module = self.lightning_module
        super().teardown()
        if module is not None and is_sharded(module.network):
            module.to(self.root_device)


def shard(network: nn.Module, layers: Sequence[nn.Module], mesh: Any) -> None:
    """Split the frozen weights of the layers over the mesh's processes.

    Args:
        network: the host; its state-dict keys stay, the layers' weights become shards.
        layers: its layers.
        mesh: a one-dimensional device mesh.
    """
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params={p for p in layer.parameters() if p.requires_grad})
    inner = {p for layer in layers for p in layer.parameters()}
    # The root holds no weights; it lets the layers share their streams and prefetch each other.
    fully_shard(network, mesh=mesh, ignored_params={p for p in network.parameters() if p not in inner})


def is_sharded(network: nn.Module) -> bool:
    """Tell whether each process holds a share of the weights only, by `shard` or by DeepSpeed's stage 3."""
    return isinstance(network, FSDPModule) or any(hasattr(p, "ds_id") for p in network.parameters())


@contextmanager
def in_step(network: nn.Module) -> Iterator[None]:
    """Let processes make different numbers of forward passes: who is done joins the others' passes.

    Before each pass the processes tell each other who computes; those that left the body compute something
    small along with the rest until nobody has anything left. A network in one piece is left alone.

    Args:
        network: the host; in the body all forward passes are without gradients.
    """
    if not is_sharded(network):
        yield
        return
    device = next(network.parameters()).device
    hook = network.register_forward_pre_hook(lambda module, inputs: _computing(1, device), prepend=True)
    try:
        yield
    finally:
        hook.remove()
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    while _computing(0, device):
        with torch.no_grad():
            network(input_ids=token, attention_mask=torch.ones_like(token))


def _computing(own: int, device: torch.device) -> None | int:
    """Exchange who computes; a process that does (1) gets None, one that is done (0) the number of others."""
    count = torch.tensor(own, device=device)
    torch.distributed.all_reduce(count)
    return None if own else int(count)  # a hook that returns a value would replace the network's inputs


class InStep(L.Callback):
    """Keep evaluations of a sharded network in step, whose processes differ in batches and answer lengths."""

    def __init__(self) -> None:
        self._open: Any = None

    def _start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._open = in_step(pl_module.network)
        self._open.__enter__()

    def _end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._open.__exit__(None, None, None)

    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _start
    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = _end
