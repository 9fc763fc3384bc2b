"""Train through DeepSpeed's ZeRO: what trains, or all weights, in shares; the same checkpoints as any run.

Differs from Lightning's own strategy, which runs on GPUs only, writes a directory of shares and takes hooks
off the network: here shares live between set-up and teardown of a Trainer, and what is saved is gathered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from configs.runtime.faults import NonFiniteFault
from model.training.distributed.deepspeed_engine import Shares, Stage, hand_over


class Zero(DDPStrategy):
    """ZeRO over the processes that DDP's strategy starts.

    Args:
        layers: the layers of the network that is trained.
        stage: how much is shared out.
        ddp: arguments of Lightning's DDPStrategy.
    """

    def __init__(self, layers: Sequence[nn.Module], stage: Stage, **ddp: Any) -> None:
        super().__init__(**ddp)
        self._layers, self._stage = layers, stage
        self._shares: Shares | None = None
        self._groups: list[list[nn.Parameter]] = []
        self._failed = False

    def model_to_device(self) -> None:
        """Share the weights out for an evaluation; for training they stay until the optimiser knows them."""
        fits = self.lightning_module.trainer.state.fn == TrainerFn.FITTING
        if self._stage.number == 3 and not fits:
            self._hand_over(None)
        elif not fits:
            super().model_to_device()

    def configure_ddp(self) -> None:
        """Wrap nothing: the engine takes DDP's place."""

    def setup_optimizers(self, trainer: Any) -> None:
        """Build optimiser and schedule over whole tensors, then share both out."""
        super().setup_optimizers(trainer)
        optimizer = self.optimizers[0]
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        self._hand_over(optimizer)
        self._shares.engine.set_gradient_accumulation_boundary(False)
        self.model = self._shares.engine

    def _hand_over(self, optimizer: torch.optim.Optimizer | None) -> None:
        module = self.lightning_module
        # Attachments of a layer read each other's weights; a plain model's tensors go by the module.
        layers = self._layers if len(module.adapters) else ()
        self._shares = hand_over(module, self._stage, self.root_device, layers, module.adapters, optimizer)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Block nothing: gradients in shares are exchanged at every batch of a window."""
        yield

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate beside the engine, whose own passes all processes must make equally often."""
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Let the engine go back; Lightning has divided the loss by the window's length."""
        self._shares.engine.backward(closure_loss, scale_wrt_gas=False)
        return closure_loss

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **kwargs: Any
    ) -> Any:
        """Make the window's last pass and the update.

        Raises:
            NonFiniteFault: naming the step, when the engine left it out.
        """
        engine = self._shares.engine
        engine.set_gradient_accumulation_boundary(True)
        result = super().optimizer_step(_Update(engine), closure, model, **kwargs)
        engine.set_gradient_accumulation_boundary(False)
        if not engine.was_step_applied():
            step = self.lightning_module.trainer.global_step + 1
            raise NonFiniteFault(f"step {step}: the gradient's norm is not finite")
        return result

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the trained tensors whole, on every process."""
        if self._shares is None:
            return super().lightning_module_state_dict()
        trained = self.lightning_module.trained()
        return {name: self._shares.parameter(parameter) for name, parameter in trained.items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return what the optimiser of a run that shares nothing would return, on every process."""
        optimizer = self.optimizers[0]
        known = next(iter(optimizer.state.values()), {})
        groups, state, first = [], {}, 0
        if known:
            self._shares.link()
        for group, parameters in zip(optimizer.param_groups, self._groups, strict=True):
            numbers = list(range(first, first + len(parameters)))
            groups.append({**{key: group[key] for key in group if key != "params"}, "params": numbers})
            for number, parameter in zip(numbers, parameters):
                state[number] = {key: self._gathered(parameter, key, value) for key, value in known.items()}
            first += len(parameters)
        return {"state": state if known else {}, "param_groups": groups}

    def _gathered(self, parameter: nn.Parameter, key: str, value: Any) -> Any:
        return self._shares.state(parameter, key) if _is_shared(value) else value

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take every process's shares of a checkpoint's optimiser over."""
        optimizer, (saved,) = self.optimizers[0], checkpoint["optimizer_states"]
        for group, kept in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in kept.items() if key != "params"})
        if not saved["state"]:
            return
        form = saved["state"][0]
        fused = optimizer.defaults.get("fused")
        for flat in self._shares.flats():
            optimizer.state[flat] = {
                key: torch.zeros_like(flat) if _is_shared(value) else _at(value, flat, fused)
                for key, value in form.items()
            }
        self._shares.link()
        for number, parameter in enumerate(p for group in self._groups for p in group):
            for key, value in saved["state"][number].items():
                if _is_shared(value):
                    self._shares.set_state(parameter, key, value)

    def on_exception(self, exception: BaseException) -> None:
        """Remember it: other processes may be gone, so nothing can be gathered any more."""
        self._failed = True
        super().on_exception(exception)

    def teardown(self) -> None:
        """Give network and tensors back as they were before."""
        if self._shares is not None and not self._failed:
            self._shares.take_back()
        self._shares, self.model = None, self.lightning_module
        super().teardown()


class _Update:
    """What Lightning takes for the optimiser of one update.

    Args:
        engine: makes it.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def step(self, closure: Callable[[], Any], **kwargs: Any) -> Any:
        """Make the passes of the window's last batch, then the update."""
        result = closure()
        self.engine.step()
        return result


def _is_shared(value: Any) -> bool:
    """Tell a tensor with an entry for every weight from counters."""
    return isinstance(value, Tensor) and value.ndim > 0


def _at(value: Any, flat: Tensor, fused: bool | None) -> Any:
    """Put a counter where the optimiser looks for it."""
    if not isinstance(value, Tensor):
        return value
    return value.to(flat.device, copy=True) if fused else value.clone()
