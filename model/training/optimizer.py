"""Optimiser and learning rate schedule over a learner's trained tensors."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from configs.schema.batch_limit import warmup_steps
from model.training.learning_rate import learning_rate
from model.training.trainable_counts import is_within_head

_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimiser and learning rate schedule of the trained tensors.

    Args:
        optimizer: adamw, adam or sgd.
        lr: peak learning rate of the adapters (or of all weights).
        head_lr: peak learning rate of the task's head.
        weight_decay: decay of adapters and matrices; biases and norms never decay.
        schedule: none, linear or cosine_annealing.
        warmup_ratio: share of the updates that warm up, in [0, 1].
        lowest_lr: learning rate at the schedule's end.
        fused: one kernel for the whole update; off where a gradient scaler inspects the gradients first.
        head_weight_decay: decay of the head's matrices; None for `weight_decay`.
        betas: decays of the two moments, of adam and adamw.
        epsilon: added to the root of the second moment, of adam and adamw.
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
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


def build_optimizer(
    settings: OptimizerSettings, trained: Mapping[str, nn.Parameter], head: Collection[str], total: int
) -> tuple[Optimizer, LambdaLR]:
    """Return the optimiser over all trained tensors, and the schedule per update.

    Args:
        settings: kind, rates, decay and schedule.
        trained: name in a learner -> tensor.
        head: dotted names of the network's head modules.
        total: updates of the run.
    """
    groups = parameter_groups(settings, trained, head)
    moments = {} if settings.optimizer == "sgd" else {"betas": settings.betas, "eps": settings.epsilon}
    optimizer = _OPTIMIZERS[settings.optimizer](groups, lr=settings.lr, fused=settings.fused, **moments)
    factors: list[Callable[[int], float]] = [
        partial(_lr_factor, base=group["lr"], total=total, settings=settings) for group in groups
    ]
    return optimizer, LambdaLR(optimizer, factors)


def parameter_groups(
    settings: OptimizerSettings, trained: Mapping[str, nn.Parameter], head: Collection[str]
) -> list[dict[str, Any]]:
    """Return groups by learning rate and decay: biases and norms have no decay, adapters' vectors do.

    Args:
        settings: rates and decay.
        trained: name in a learner -> tensor.
        head: dotted names of the network's head modules.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        lr, decay = settings.lr, settings.weight_decay
        if is_within_head(name.removeprefix("network."), head):
            lr = settings.head_lr
            decay = decay if settings.head_weight_decay is None else settings.head_weight_decay
        if parameter.ndim == 1 and not name.startswith("adapters."):
            decay = 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]


def _lr_factor(step: int, *, base: float, total: int, settings: OptimizerSettings) -> float:
    """Return the learning rate of a step as a multiple of the base rate."""
    if base <= 0:
        return 0.0
    rate = learning_rate(
        step,
        base=base,
        total=total,
        warmup=warmup_steps(settings.warmup_ratio, total),
        kind=settings.schedule,
        lowest=settings.lowest_lr,
    )
    return rate / base
