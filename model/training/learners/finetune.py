"""The learner of supervised fine-tuning: adapters, or all weights, under one objective."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from configs.runtime.faults import InputFault
from configs.schema.batch_limit import warmup_steps
from model.adapters.adapter import is_router
from model.injection.attachment import Attachment, switch
from model.site import SiteKey
from model.training.distributed.unused_parameters import silent
from model.training.learning_rate import learning_rate
from model.training.metrics import Joined
from model.training.objective import Batch, Objective

Answer = Callable[[Sequence[int]], str]
"""Token ids of a generated answer -> text."""


@dataclass(frozen=True)
class Recipe:
    """How the trained tensors move.

    Args:
        optimizer: adamw, adam or sgd.
        lr: top learning rate of the adapters (or of all weights).
        head_lr: that of the task's head.
        weight_decay: decay of adapters and matrices; biases and norms never decay.
        schedule: none, linear or cosine_annealing.
        warmup_ratio: share of the updates that warm up.
        lowest_lr: where a schedule ends.
        fused: one kernel for the whole update; off where a gradient scaler must look in between.
        head_weight_decay: decay of the head's matrices; None: as others.
    """

    optimizer: str
    lr: float
    head_lr: float
    weight_decay: float
    schedule: str
    warmup_ratio: float
    lowest_lr: float
    fused: bool = True
    head_weight_decay: float | None = None


class FineTuner(L.LightningModule):
    """Train and evaluate a network with attached adapters.

    Args:
        network: the stock network, its forward edited at the attached sites.
        attachments: by site; empty for full fine-tuning.
        head: dotted names of the head modules that train beside the adapters.
        objective: loss and metrics.
        recipe: optimiser and schedule.
        evaluations: names of the evaluation sets, `validation` or `test` first; others give their suffix to
            metrics. Where all have a suffix they are parts of a mixture, and what they have in common stands
            under the plain names.
    """

    def __init__(
        self,
        network: nn.Module,
        attachments: Mapping[SiteKey, Attachment],
        *,
        head: Sequence[str],
        objective: Objective,
        recipe: Recipe,
        evaluations: Sequence[str] = ("validation",),
    ) -> None:
        super().__init__()
        self.network = network
        self.adapters = nn.ModuleDict({str(key): attachment for key, attachment in attachments.items()})
        self.attachments = dict(attachments)
        self._routers = {
            f"adapters.{key}.adapter.{name}"
            for key, attachment in attachments.items()
            for name, _ in attachment.adapter.named_parameters()
            if is_router(attachment.adapter, name)
        }
        self.objective = objective
        self.recipe = recipe
        self.head = tuple(head)
        self.evaluations = tuple(evaluations)
        self.results: dict[str, float] = {}
        self.last_loss: Tensor | None = None
        self.strict_loading = False
        self._running: list[Any] = []
        self._total: Any = None

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the tensors that train, by their name in this module."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def held(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: what trains, and all other tensors of the adapters it is in."""
        found: dict[str, Tensor] = dict(self.trained())
        for key, attachment in self.adapters.items():
            own = attachment.state_dict(prefix=f"adapters.{key}.", keep_vars=True)
            found |= own if found.keys() & own.keys() else {}
        return found

    def groups(self) -> dict[str, int]:
        """Return the number of trained parameters in adapters, routers or gates, head and other tensors."""
        counts = {"adapters": 0, "router_or_gates": 0, "head": 0, "other": 0}
        for name, parameter in self.trained().items():
            counts[self._group(name)] += parameter.numel()
        return counts

    def _group(self, name: str) -> str:
        if name.startswith("adapters."):
            return "router_or_gates" if name in self._routers else "adapters"
        plain = name.removeprefix("network.")
        return "head" if any(plain.startswith(f"{module}.") for module in self.head) else "other"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters and what else trains; the frozen base is named by the run's facts."""
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self.held()}
        checkpoint["switches"] = {
            str(key): attachment.enabled
            for key, attachment in self.attachments.items()
            if any(parameter.requires_grad for parameter in attachment.adapter.parameters())
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse tensors that are not those that train here; Lightning's own check is off."""
        self.check(checkpoint["state_dict"], "--load")
        switch(self.attachments, checkpoint["switches"])

    def check(self, state: Mapping[str, Tensor], where: str) -> None:
        """Compare a checkpoint's tensors with those that it would hold here.

        Raises:
            InputFault: naming tensors that are missing, unexpected or of another shape.
        """
        own = self.held()
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

    def adopt(self, checkpoint: Mapping[str, Any], where: str) -> None:
        """Copy a checkpoint's tensors in, after `check`, and switch its modules on and off.

        Raises:
            InputFault: for tensors that are not those that train here.
        """
        self.check(checkpoint["state_dict"], where)
        switch(self.attachments, checkpoint["switches"])
        try:
            self.load_state_dict(checkpoint["state_dict"], strict=False)
        except ValueError as refusal:
            raise InputFault(f"{where}: {refusal}") from None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, weighted so that an update uses the mean over its own accumulation window."""
        loss = self.objective.loss(self.network, batch)
        self.last_loss = loss.detach()
        self.log("train/loss", self.last_loss, prog_bar=True)
        accumulate = self.trainer.accumulate_grad_batches
        # Lightning divides every batch by `accumulate`; the last window of an epoch may be shorter.
        loss = loss * (accumulate / self.window(batch_idx))
        return silent(loss, self.unused()) if self.trainer.world_size > 1 else loss

    def active_parameters(self) -> int:
        """Return the number of adapter parameters in modules that are on."""
        on = (attachment for attachment in self.attachments.values() if attachment.active)
        return sum(p.numel() for attachment in on for p in attachment.adapter.parameters() if p.requires_grad)

    def unused(self) -> list[nn.Parameter]:
        """Return what trains by its flag but not now: it belongs to a module that is off, or is frozen."""
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
        """Take gradients away from what is off or frozen: no update, no momentum, no decay."""
        for parameter in self.unused():
            parameter.grad = None

    def window(self, batch_idx: int) -> int:
        """Return how many batches share the update that this batch belongs to."""
        accumulate = self.trainer.accumulate_grad_batches
        start = batch_idx - batch_idx % accumulate
        return int(min(accumulate, self.trainer.num_training_batches - start))

    def on_validation_epoch_start(self) -> None:
        """Start every evaluation set afresh."""
        self._running = [self.objective.evaluation(self.device) for _ in self.evaluations]
        are_parts = all(_suffix(name) for name in self.evaluations)
        self._total = self.objective.evaluation(self.device) if are_parts else None

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to its evaluation set."""
        running = self._running[dataloader_idx]
        joined = running if self._total is None else Joined(self._total, running)
        self.objective.evaluate(self.network, batch, joined)

    def on_validation_epoch_end(self) -> None:
        """Publish `val/<metric>` for the first set, or all parts, and `val/<metric>_<suffix>` for others."""
        self._publish("val")

    def on_test_epoch_start(self) -> None:
        """Start every evaluation set afresh."""
        self.on_validation_epoch_start()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to its evaluation set."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Publish `test/<metric>`."""
        self._publish("test")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Return row numbers (B) and predictions (B)."""
        return batch["index"], self.objective.predict(self.network, batch)

    def _publish(self, split: str) -> None:
        whole = [] if self._total is None else [("", self._total)]
        for suffix, running in (*whole, *zip(map(_suffix, self.evaluations), self._running)):
            self.results |= {
                f"{split}/{metric}{suffix}": value for metric, value in running.compute().items()
            }
        self._running, self._total = [], None
        for name, value in self.results.items():
            if name.startswith(f"{split}/"):
                self.log(
                    name, torch.tensor(value, dtype=torch.float64), rank_zero_only=False, sync_dist=False
                )

    def configure_optimizers(self) -> Any:
        """Return the optimiser over adapters and head, and the schedule per update."""
        groups = self._parameter_groups()
        recipe = self.recipe
        kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        optimizer = kinds[recipe.optimizer](groups, lr=recipe.lr, fused=recipe.fused)
        total = int(self.trainer.estimated_stepping_batches)
        shape = {
            "total": total,
            "warmup": warmup_steps(recipe.warmup_ratio, total),
            "kind": recipe.schedule,
            "lowest": recipe.lowest_lr,
        }
        factors = [
            partial(_factor, base=group["lr"], **shape) if group["lr"] > 0 else (lambda step: 0.0)
            for group in groups
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return groups by learning rate and decay: biases and norms do not decay, vectors of adapters do."""
        recipe = self.recipe
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.trained().items():
            lr, decay = recipe.lr, recipe.weight_decay
            if self._group(name) == "head":
                lr = recipe.head_lr
                decay = decay if recipe.head_weight_decay is None else recipe.head_weight_decay
            if parameter.ndim == 1 and not name.startswith("adapters."):
                decay = 0.0
            groups.setdefault((lr, decay), []).append(parameter)
        return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def _suffix(name: str) -> str:
    """Return what an evaluation set's name adds to those of its metrics: `validation_a` -> `_a`."""
    return name.removeprefix("validation").removeprefix("test")


def _factor(step: int, *, base: float, **shape: Any) -> float:
    """Return the share of the base rate at a step; the optimiser multiplies by it."""
    return learning_rate(step, base=base, **shape) / base
