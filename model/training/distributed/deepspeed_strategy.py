"""Train through DeepSpeed's ZeRO: trained tensors, or all weights, are partitioned; checkpoints stay whole.

Differs from Lightning's own strategy, which runs on GPUs only, writes a directory of partitions and removes
hooks from the network: here the engine lives between set-up and teardown of a Trainer, and tensors are
gathered before they are saved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from configs.runtime.faults import NonFiniteFault
from model.training.distributed.deepspeed_engine import PartitionedModule, ZeroConfig, partition
from model.training.distributed.sharding import AdaptedModule


class DeepSpeedZeroStrategy(DDPStrategy):
    """ZeRO over the processes that DDP's strategy starts.

    Args:
        layers: the layers of the network that is trained.
        config: what is partitioned.
        ddp: arguments of Lightning's DDPStrategy.
    """

    def __init__(self, layers: Sequence[nn.Module], config: ZeroConfig, **ddp: Any) -> None:
        super().__init__(**ddp)
        self._layers, self._zero = layers, config
        self._partitioned: PartitionedModule | None = None
        self._groups: list[list[nn.Parameter]] = []
        self._failed = False

    @property
    def _engine(self) -> Any:
        """DeepSpeed's engine, a library without types."""
        return self._module.engine

    @property
    def _module(self) -> PartitionedModule:
        assert self._partitioned is not None, "the engine exists from setup_optimizers to teardown"
        return self._partitioned

    @property
    def _learner(self) -> L.LightningModule:
        assert self.lightning_module is not None, "Lightning connects the module before it calls a strategy"
        return self.lightning_module

    def model_to_device(self) -> None:
        """Partition the weights for an evaluation; before training wait until the optimiser knows them."""
        fits = self._learner.trainer.state.fn == TrainerFn.FITTING
        if self._zero.stage == 3 and not fits:
            self._partition(None)
        elif not fits:
            super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: the engine takes DDP's place."""

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        """Build optimiser and schedule over whole tensors, then partition both."""
        super().setup_optimizers(trainer)
        optimizer = self.optimizers[0]
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self._partition(optimizer)
        self._engine.set_gradient_accumulation_boundary(False)
        self.model = self._engine

    def _partition(self, optimizer: torch.optim.Optimizer | None) -> None:
        module = self._learner
        assert isinstance(module, AdaptedModule), "a run has learners that hold a network"
        # Attachments of a layer read each other's weights; a plain model's tensors are gathered by module.
        layers = self._layers if len(module.adapters) else ()
        self._partitioned = partition(
            module, self._zero, self.root_device, layers, module.adapters, optimizer
        )

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Block nothing: partitioned gradients are exchanged at every batch of an accumulation window."""
        yield

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate without the engine, whose forward passes all processes must make equally often."""
        with self.precision_plugin.val_step_context():
            return self._learner.validation_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Let the engine go backward; Lightning has divided the loss (scalar) by the window's length."""
        self._engine.backward(closure_loss, scale_wrt_gas=False)
        return closure_loss

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """Make the window's last pass and the update.

        Raises:
            NonFiniteFault: naming the step, when the engine skipped the update.
        """
        engine = self._engine
        engine.set_gradient_accumulation_boundary(True)
        update: Any = _EngineUpdate(engine)  # Lightning only calls `step`
        result = super().optimizer_step(update, closure, model, **kwargs)
        engine.set_gradient_accumulation_boundary(False)
        if not engine.was_step_applied():
            step = self._learner.trainer.global_step + 1
            raise NonFiniteFault(f"step {step}: the gradient's norm is not finite")
        return result

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the trained tensors in their full shapes, on every process."""
        if self._partitioned is None:
            return super().lightning_module_state_dict()
        trained = {name: p for name, p in self._learner.named_parameters() if p.requires_grad}
        return {name: self._partitioned.full_parameter(parameter) for name, parameter in trained.items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return what the optimiser of an unpartitioned run would return, on every process."""
        optimizer = self.optimizers[0]
        known: Mapping[str, Any] = next(iter(optimizer.state.values()), {})
        groups: list[dict[str, Any]] = []
        state: dict[int, dict[str, Any]] = {}
        first = 0
        if known:
            self._module.link_optimizer_state()
        for group, parameters in zip(optimizer.param_groups, self._groups, strict=True):
            numbers = list(range(first, first + len(parameters)))
            groups.append({**{key: group[key] for key in group if key != "params"}, "params": numbers})
            for number, parameter in zip(numbers, parameters):
                state[number] = {key: self._gathered(parameter, key, value) for key, value in known.items()}
            first += len(parameters)
        return {"state": state if known else {}, "param_groups": groups}

    def _gathered(self, parameter: nn.Parameter, key: str, value: Any) -> Any:
        return self._module.optimizer_state(parameter, key) if _is_elementwise(value) else value

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Copy this process's part of a checkpoint's optimiser state into its place."""
        optimizer, (saved,) = self.optimizers[0], checkpoint["optimizer_states"]
        for group, kept in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in kept.items() if key != "params"})
        if not saved["state"]:
            return
        form = saved["state"][0]
        fused = optimizer.defaults.get("fused")
        for flat in self._module.flat_partitions():
            optimizer.state[flat] = {
                key: torch.zeros_like(flat) if _is_elementwise(value) else _counter(value, flat, fused)
                for key, value in form.items()
            }
        self._module.link_optimizer_state()
        for number, parameter in enumerate(p for group in self._groups for p in group):
            for key, value in saved["state"][number].items():
                if _is_elementwise(value):
                    self._module.set_optimizer_state(parameter, key, value)

    def on_exception(self, exception: BaseException) -> None:
        """Note it: other processes may be gone, so that nothing can be gathered any more."""
        self._failed = True
        super().on_exception(exception)

    def teardown(self) -> None:
        """Restore network and tensors as they were before."""
        if self._partitioned is not None and not self._failed:
            self._partitioned.restore()
        self._partitioned, self.model = None, self.lightning_module
        super().teardown()


class _EngineUpdate:
    """What Lightning steps instead of an optimiser.

    Args:
        engine: DeepSpeed's; it updates the trained tensors.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def step(self, closure: Callable[[], Any], **kwargs: Any) -> Any:
        """Make the passes of the window's last batch, then the update."""
        result = closure()
        self.engine.step()
        return result


def _is_elementwise(value: Any) -> bool:
    """Return whether an optimiser state has a number for every weight; others are counters."""
    return isinstance(value, Tensor) and value.ndim > 0


def _counter(value: Any, flat: Tensor, fused: bool | None) -> Any:
    """Return a counter where the optimiser reads it: a fused one on the device of the flat tensor."""
    if not isinstance(value, Tensor):
        return value
    return value.to(flat.device, copy=True) if fused else value.clone()
