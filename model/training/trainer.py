"""Build the Trainer of a run from its options."""

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch import nn

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.runtime.launcher import launcher
from configs.schema.options import DEEPSPEED, Options
from model.tensors.checkpoint import RunCheckpointIO
from model.training.compilation import check_compiler
from model.training.distributed.sharding import ShardedBaseDDP, SynchronisedEvaluation, TrainedOnlyDDP

_TIMEOUT = timedelta(minutes=30)
"""How long a process waits for another one in a collective operation."""


def check_devices(options: Options) -> None:
    """Refuse devices and precisions that this machine does not have.

    Raises:
        InputFault: naming the flag.
    """
    accelerated = torch.cuda.is_available()
    if options.accelerator == "gpu" and not accelerated:
        raise InputFault("--accelerator: no GPU is available on this machine; did you mean 'cpu'?")
    on_gpu = accelerated and options.accelerator != "cpu"
    if on_gpu and options.num_devices > torch.cuda.device_count():
        raise InputFault(
            f"--num-devices: {options.num_devices} requested, this machine has {torch.cuda.device_count()}"
        )
    if options.precision == "16-mixed" and not on_gpu:
        raise InputFault("--precision: 16-mixed needs a GPU; did you mean 'bf16-mixed'?")
    check_compiler(options)


def strategy(options: Options, layers: Sequence[nn.Module] = ()) -> str | Strategy:
    """Return Lightning's strategy; buffers are frozen and equal, so evaluation need not broadcast them.

    Args:
        options: the run's options.
        layers: the network's layers, which `fsdp` shards and DeepSpeed gathers one by one.
    """
    ddp: dict[str, Any] = {"broadcast_buffers": False, "timeout": _TIMEOUT}
    if options.strategy == "fsdp":
        return ShardedBaseDDP(layers, **ddp)
    if options.strategy in DEEPSPEED:
        return _deepspeed(options, layers, ddp)
    if options.num_devices * options.nodes == 1 and options.strategy == "auto":
        return "auto"
    unused = options.strategy == "ddp_find_unused_parameters_true"
    return TrainedOnlyDDP(find_unused_parameters=unused, **ddp)


def _deepspeed(options: Options, layers: Sequence[nn.Module], ddp: Mapping[str, Any]) -> Strategy:
    """Return DeepSpeed's strategy; the package is optional, so only its strategies import it."""
    # By itself DeepSpeed would use a GPU if there is one, whatever --accelerator is.
    if options.accelerator == "cpu" or not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    config = kinds.import_late("model.training.distributed.deepspeed_engine", "ZeroConfig")(
        stage=3 if shards_weights(options) else 2,
        offload=options.strategy.endswith("_offload"),
        clip=options.gradient_clip_val,
        precision=options.precision,
        batch_size=options.batch_size,
    )
    made = kinds.import_late("model.training.distributed.deepspeed_strategy", "DeepSpeedZeroStrategy")
    return made(layers, config, **ddp)


def shards_weights(options: Options) -> bool:
    """Return whether each process holds a part of the weights only."""
    return options.strategy == "fsdp" or options.strategy.startswith("deepspeed_stage_3")


def build_trainer(
    options: Options,
    directory: Path | None,
    callbacks: Sequence[Callback] = (),
    *,
    quiet: bool,
    steps: int = 0,
    limits: Mapping[str, Any] | None = None,
    layers: Sequence[nn.Module] = (),
) -> L.Trainer:
    """Return a Trainer that writes through our own callbacks and TensorBoard only.

    Args:
        options: the run's options.
        directory: the run directory; None to log no curves.
        callbacks: run before the progress bar and the monitors.
        quiet: no progress bar, as on a pipe.
        steps: optimiser steps already done; curves logged after the checkpoint are purged.
        limits: further arguments of the Trainer, e.g. `limit_train_batches`.
        layers: the network's layers, for strategies that shard or gather them one by one.
    """
    # Lightning's advice (sizes of logging intervals, more workers) is not about a run's result.
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*treespec.*")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")
    warnings.filterwarnings("ignore", message=".*torch.distributed.*is deprecated.*")  # DeepSpeed's calls
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # OPT's layers; no host edits it
    monitors: list[Callback] = [] if quiet else [RichProgressBar(leave=True)]
    if shards_weights(options):
        monitors.append(SynchronisedEvaluation())
    precision: Any = options.precision  # one of Lightning's names, which the schema checked
    logger: TensorBoardLogger | bool = False
    if directory is not None:
        monitors.append(LearningRateMonitor("step"))
        logger = TensorBoardLogger(
            str(directory), name="tensorboard", version="", purge_step=steps or None, default_hp_metric=False
        )
    return L.Trainer(
        accelerator=options.accelerator,
        devices=options.num_devices,
        num_nodes=options.nodes,
        strategy=strategy(options, layers),
        precision=precision,
        max_epochs=options.max_epochs,
        max_steps=options.max_steps,
        accumulate_grad_batches=options.accumulate_grad_batches,
        gradient_clip_val=None if options.strategy in DEEPSPEED else options.gradient_clip_val,
        log_every_n_steps=options.log_every_n_steps,
        logger=logger,
        callbacks=[*callbacks, *monitors],
        plugins=[RunCheckpointIO(), _cluster()],
        enable_checkpointing=False,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        deterministic=True,
        inference_mode=False,  # its tensors count no versions, so sites could not share their input
        default_root_dir=str(directory or Path.cwd()),
        **(limits or {}),
    )


def _cluster() -> ClusterEnvironment:
    """Return who starts the processes; Lightning itself would guess from left-over variables.

    Under SLURM its own checkpoints and requeuing stay off.
    """
    by = launcher(os.environ)
    if by == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if by == "torchrun" else LightningEnvironment()


def early_stopping(selection: str, maximise: bool, patience: int | None) -> list[Callback]:
    """Return the callback that ends training after `patience` evaluations without a better one, if any.

    Args:
        selection: name of the metric, e.g. `val/accuracy`.
        maximise: its direction.
        patience: None for no early stopping.
    """
    if patience is None:
        return []
    mode = "max" if maximise else "min"
    # At an epoch's end Lightning would ask it after our own callbacks, too late for their checkpoint.
    stop = EarlyStopping(
        selection, mode=mode, patience=patience, check_finite=False, check_on_train_epoch_end=False
    )
    return [stop]
