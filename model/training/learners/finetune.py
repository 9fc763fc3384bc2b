"""The learner of supervised fine-tuning: adapters, or all weights, under one objective."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.runtime.faults import InputFault, NonFiniteFault
from model.injection.attachment import Attachment, switch
from model.site import SiteKey
from model.training.distributed.unused_parameters import include_unused
from model.training.metrics import JointUpdate
from model.training.objective import Batch, Evaluation, Objective
from model.training.optimizer import OptimizerSettings, build_optimizer
from model.training.trainable_counts import trainable_counts


class FineTuner(L.LightningModule):
    """Train and evaluate a network with attached adapters.

    Args:
        network: the stock network; attachments replace the forward of its adapted linears.
        attachments: by site; empty for full fine-tuning.
        head: dotted names of the head modules that train with the adapters.
        objective: loss and metrics.
        optimizer_settings: optimiser and schedule.
        evaluations: names of the evaluation sets, `validation` or `test` first; the suffix of another name
            is appended to its metrics' names. If all have a suffix they are the parts of a mixture, and the
            plain names hold the metrics over all parts together.

    Attributes:
        results: the latest metrics by name, e.g. `val/accuracy`.
        last_loss: the latest training loss, a scalar on its device.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        attachments: Mapping[SiteKey, Attachment],
        *,
        head: Sequence[str],
        objective: Objective,
        optimizer_settings: OptimizerSettings,
        evaluations: Sequence[str] = ("validation",),
    ) -> None:
        super().__init__()
        self.network = network
        self.adapters = nn.ModuleDict({str(key): attachment for key, attachment in attachments.items()})
        self.attachments = dict(attachments)
        self.objective = objective
        self.optimizer_settings = optimizer_settings
        self.head = tuple(head)
        self.evaluations = tuple(evaluations)
        self.results: dict[str, float] = {}
        self.last_loss: Tensor | None = None
        self.strict_loading = False
        self._running: list[Evaluation] = []
        self._total: Evaluation | None = None

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the tensors that require a gradient, by their name in this module."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint: what trains, and all tensors of adapters that train in part."""
        found: dict[str, Tensor] = dict(self.trained())
        for key, attachment in self.adapters.items():
            own = attachment.state_dict(prefix=f"adapters.{key}.", keep_vars=True)
            found |= own if found.keys() & own.keys() else {}
        return found

    def trainable_counts(self) -> dict[str, int]:
        """Return the number of trainable parameters in adapters, routers or gates, head and other tensors."""
        return trainable_counts(self.network, self.attachments, self.head)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters and what else trains; the frozen base is identified by the checkpoint's facts."""
        checkpoint["state_dict"] = {
            name: checkpoint["state_dict"][name] for name in self.checkpoint_tensors()
        }
        checkpoint["switches"] = {
            str(key): attachment.enabled
            for key, attachment in self.attachments.items()
            if _takes_part(attachment.adapter)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the tensors, since Lightning's own check is off, and restore which modules are on.

        Raises:
            InputFault: as `check_tensors`.
        """
        self.check_tensors(checkpoint["state_dict"], "--load")
        switch(self.attachments, checkpoint["switches"])

    def check_tensors(self, state: Mapping[str, Tensor], where: str) -> None:
        """Compare a checkpoint's tensors with those that this learner would save.

        Args:
            state: name -> tensor.
            where: what begins each line of a refusal.

        Raises:
            InputFault: naming tensors that are missing, unexpected or of another shape.
        """
        own = self.checkpoint_tensors()
        faults = [f"{where}: lacks {name}" for name in sorted(set(own) - set(state))]
        faults += [
            f"{where}: holds {name}, which this model does not train"
            for name in sorted(set(state) - set(own))
        ]
        faults += [
            f"{where}: {name}: shape {tuple(state[name].shape)}, this model has {tuple(own[name].shape)}"
            for name in sorted(set(own) & set(state))
            if state[name].shape != own[name].shape
        ]
        if faults:
            raise InputFault(*faults[:8])

    def load_trained(self, checkpoint: Mapping[str, Any], where: str) -> None:
        """Load a checkpoint's tensors, after `check_tensors`, and switch its modules on and off.

        Args:
            checkpoint: holds `state_dict` and `switches`.
            where: what begins each line of a refusal.

        Raises:
            InputFault: as `check_tensors`, or when an adapter refuses its tensors.
        """
        self.check_tensors(checkpoint["state_dict"], where)
        switch(self.attachments, checkpoint["switches"])
        try:
            self.load_state_dict(checkpoint["state_dict"], strict=False)
        except ValueError as refusal:
            raise InputFault(f"{where}: {refusal}") from None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss (scalar), weighted so that an update uses the mean over its accumulation window."""
        loss = self.objective.loss(self.network, batch)
        self.last_loss = loss.detach()
        self.log("train/loss", self.last_loss, prog_bar=True)
        accumulate = self.trainer.accumulate_grad_batches
        # Lightning divides every batch by `accumulate`; the last window of an epoch may be shorter.
        loss = loss * (accumulate / self.window(batch_idx))
        return include_unused(loss, self.unused_parameters()) if self.trainer.world_size > 1 else loss

    def active_parameters(self) -> int:
        """Return the number of trainable adapter parameters in modules that are on."""
        on = [attachment.adapter for attachment in self.attachments.values() if attachment.active]
        return sum(p.numel() for adapter in on for p in adapter.parameters() if p.requires_grad)

    def unused_parameters(self) -> list[nn.Parameter]:
        """Return what requires a gradient but is not updated: its module is off, or it was frozen."""
        found = []
        for attachment in self.attachments.values():
            frozen = attachment.adapter.frozen
            found += [
                p
                for name, p in attachment.adapter.named_parameters()
                if p.requires_grad and (name in frozen or not attachment.active)
            ]
        return found

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remove the gradients of what is off or frozen: no update, no momentum, no decay."""
        for parameter in self.unused_parameters():
            parameter.grad = None

    def window(self, batch_idx: int) -> int:
        """Return how many batches share the update that this batch belongs to."""
        accumulate = self.trainer.accumulate_grad_batches
        start = batch_idx - batch_idx % accumulate
        return int(min(accumulate, self.trainer.num_training_batches - start))

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics of every evaluation set."""
        self._running = [self.objective.evaluation(self.device) for _ in self.evaluations]
        are_parts = all(_suffix(name) for name in self.evaluations)
        self._total = self.objective.evaluation(self.device) if are_parts else None

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its evaluation set."""
        running = self._running[dataloader_idx]
        metrics = running if self._total is None else JointUpdate(self._total, running)
        self.objective.evaluate(self.network, batch, metrics)

    def on_validation_epoch_end(self) -> None:
        """Log `val/<metric>` of the first set, or of all parts, and `val/<metric>_<suffix>` of the others."""
        self._log_results("val")

    def on_test_epoch_start(self) -> None:
        """Reset the metrics of every evaluation set."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the metrics of its evaluation set."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Log `test/<metric>`, named as those of a validation.

        Raises:
            NonFiniteFault: when a loss is not finite.
        """
        self._log_results("test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Return row numbers (B) and predictions (B)."""
        return batch["index"], self.objective.predict(self.network, batch)

    def _log_results(self, split: str) -> None:
        whole = [] if self._total is None else [("", self._total)]
        for suffix, running in (*whole, *zip(map(_suffix, self.evaluations), self._running)):
            self.results |= {
                f"{split}/{metric}{suffix}": value for metric, value in running.compute().items()
            }
        self._running, self._total = [], None
        for name, value in self.results.items():
            if name.startswith("test/loss") and not math.isfinite(value):
                raise NonFiniteFault(f"{name}: the loss is {value}")
            if name.startswith(f"{split}/"):
                self.log(
                    name, torch.tensor(value, dtype=torch.float64), rank_zero_only=False, sync_dist=False
                )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser over all trained tensors, and the schedule per update."""
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, scheduler = build_optimizer(self.optimizer_settings, self.trained(), self.head, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _takes_part(adapter: nn.Module) -> bool:
    """Return whether an adapter trains, or has nothing to train as its gate is another's."""
    parameters = list(adapter.parameters())
    return not parameters or any(parameter.requires_grad for parameter in parameters)


def fine_tuner(module: L.LightningModule) -> FineTuner:
    """Return the module that Lightning passes to a callback, as what the callbacks of a training run on."""
    assert isinstance(module, FineTuner), type(module)
    return module


def _suffix(name: str) -> str:
    """Return what an evaluation set's name appends to its metrics' names: `validation_a` -> `_a`."""
    return name.removeprefix("validation").removeprefix("test")
