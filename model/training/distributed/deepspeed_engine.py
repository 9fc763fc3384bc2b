"""Partition a module with a DeepSpeed engine, and restore it afterwards as it was.

Source: Rajbhandari et al. 2019, arXiv 1910.02054 (ZeRO), the package `deepspeed`, whose engine this drives.
Differs: an engine converts a module for good; here tensors, attributes and hooks are put back at the end.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import deepspeed
import torch
from deepspeed.utils import lazy_init_hp_params_optimizer_state, logger, set_z3_leaf_module
from torch import Tensor, nn

from model.tensors.random_state import random_states, restore_random_states

_AUTOCAST = {"bf16-mixed": "bfloat16"}
_ENGINE_ATTRIBUTES = (
    "_z3_leaf",
    "_external_params",
    "external_parameters",
    "all_parameters",
    "_original_parameters",
    "pre_bwd_fn",
    "post_bwd_fn",
    "applied_pre_backward_ref_cnt",
)
"""What stage 3 sets on every module, in addition to names that begin with `ds_`."""


@dataclass(frozen=True)
class ZeroConfig:
    """What DeepSpeed partitions over the processes, and the settings that its engine requires.

    Args:
        stage: 2, optimiser and gradients; 3, the weights too.
        offload: whether weights and optimiser state are in host memory; with stage 3.
        clip: largest gradient norm, or None.
        precision: Lightning's name; 32-true or bf16-mixed.
        batch_size: examples per process and batch; the engine requires it and only uses it for its counts.
    """

    stage: int
    offload: bool = False
    clip: float | None = None
    precision: str = "32-true"
    batch_size: int = 1

    def deepspeed_config(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration.

        Layers are gathered one by one and never ahead: which ones are in memory would depend on the passes a
        process made before, and all processes wait for a gathering that one of them leaves out.
        """
        zero: dict[str, Any] = {"stage": self.stage, "overlap_comm": False}
        if self.stage == 3:
            zero |= dict.fromkeys(("stage3_prefetch_bucket_size", "stage3_max_reuse_distance"), 0)
            zero["stage3_param_persistence_threshold"] = 0
        if self.offload:
            zero |= {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
        config = {
            "train_micro_batch_size_per_gpu": self.batch_size,
            "gradient_accumulation_steps": 1,  # the strategy decides which batch ends an update
            "gradient_clipping": self.clip or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": zero,
        }
        if self.precision in _AUTOCAST:
            # Gradients are exchanged in their own type: no module's are cast down for it.
            kind = {"enabled": True, "dtype": _AUTOCAST[self.precision], "lower_precision_safe_modules": []}
            config["torch_autocast"] = kind
        return config


@dataclass
class PartitionedModule:
    """A module whose tensors a DeepSpeed engine manages, until `restore`.

    Args:
        module: the complete module that runs.
        engine: DeepSpeed's engine over it, a library without types.
    """

    module: nn.Module
    engine: Any
    _linear: Any = None
    _modules: Mapping[nn.Module, dict[str, Any]] = field(default_factory=dict)
    _tensors: Mapping[nn.Parameter, dict[str, Any]] = field(default_factory=dict)

    def full_parameter(self, parameter: nn.Parameter) -> Tensor:
        """Return a trained tensor in its full shape; with stage 3 all processes must call it."""
        if hasattr(parameter, "ds_id"):
            return deepspeed.utils.safe_get_full_fp32_param(parameter)
        return parameter.detach()

    def link_optimizer_state(self) -> None:
        """Make the optimiser's state readable by `optimizer_state`, once there is some.

        With stage 2 DeepSpeed does this after the first group's first update, and misses the other groups.
        """
        zero = self.engine.optimizer
        for group, flat in zip(getattr(zero, "bit16_groups", ()), self.flat_partitions()):
            lazy_init_hp_params_optimizer_state(group, flat, zero.optimizer.state)

    def optimizer_state(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Return an optimiser state of a trained tensor, in its full shape; all processes must call it."""
        return deepspeed.utils.safe_get_full_optimizer_state(parameter, key)

    def set_optimizer_state(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Copy this process's part of an optimiser state, given in full, into its place."""
        value = value.to(self.engine.device)
        if not hasattr(parameter, "ds_tensor"):
            deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
            return
        size = parameter.ds_tensor.numel()  # the last part is padded; DeepSpeed's own setter ignores that
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        padded = nn.functional.pad(value.flatten(), (0, size * world - value.numel()))
        part = padded.narrow(0, size * rank, size)
        deepspeed.utils.safe_set_local_optimizer_state(parameter, part, key)

    def flat_partitions(self) -> Sequence[Tensor]:
        """Return this process's parts of the trained tensors as the optimiser sees them: (numbers,) each."""
        zero = self.engine.optimizer
        is_stage_3 = hasattr(zero, "fp32_partitioned_groups_flat")
        return zero.fp32_partitioned_groups_flat if is_stage_3 else zero.single_partition_of_fp32_groups

    def restore(self) -> None:
        """Make every tensor whole on the host and remove what the engine set; all processes must call it."""
        whole = {}
        for parameter in self._tensors:
            with deepspeed.zero.GatheredParameters([parameter]):
                whole[parameter] = parameter.detach().to("cpu", copy=True)
        self.engine.destroy()
        self.engine.module_forward_pre_hook.remove()
        self.engine.module_forward_post_hook.remove()
        for module, before in self._modules.items():
            for name in set(vars(module)) - set(before):
                if name.startswith("ds_") or name in _ENGINE_ATTRIBUTES:
                    delattr(module, name)
            vars(module)["_parameters"] = before["_parameters"]
        for parameter, before in self._tensors.items():
            vars(parameter).clear()
            vars(parameter).update(before)
            parameter.data, parameter.grad = whole[parameter], None
        nn.functional.linear = self._linear


def partition(
    module: nn.Module,
    config: ZeroConfig,
    device: torch.device,
    leaves: Sequence[nn.Module],
    uncalled: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> PartitionedModule:
    """Move a module to a device and let DeepSpeed partition it; no random state is changed.

    Args:
        module: the complete module that runs; every process holds the same tensors.
        config: what is partitioned.
        device: where it computes.
        leaves: modules whose tensors are gathered together, the layers.
        uncalled: holds tensors that are used without calling it, the adapters; they stay gathered.
        optimizer: over the trained tensors; None to evaluate only.
    """
    drawn = random_states()
    logger.setLevel("ERROR")
    partitioned = PartitionedModule(
        module,
        None,
        nn.functional.linear,
        {part: dict(vars(part)) for part in module.modules()},
        {p: dict(vars(p)) for p in module.parameters()},
    )
    words = config.deepspeed_config()
    trained = [p for p in module.parameters() if p.requires_grad] if optimizer else []
    with redirect_stdout(io.StringIO()):  # it reports the building of kernels
        deepspeed.init_distributed(torch.distributed.get_backend(), dist_init_required=False)
        if config.stage == 3:
            for leaf in leaves:
                set_z3_leaf_module(leaf, True)
            # Before the device sees them, so that it never holds more than one whole layer.
            deepspeed.zero.Init(module=module, config_dict_or_path=words)
        module.to(device)
        with _hidden(module, uncalled) if config.stage == 3 else nullcontext():
            partitioned.engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=optimizer,
                model_parameters=trained,
                config=words,
                dist_init_required=False,
            )
    if config.stage == 3:
        _keep_gathered(list(uncalled.parameters()), partitioned.engine.optimizer)
    restore_random_states(drawn)
    return partitioned


@contextmanager
def _hidden(module: nn.Module, child: nn.Module) -> Iterator[None]:
    """Hide a child that is never called from the engine's hooks, which gather and free at every call."""
    children = dict(module._modules)
    for name in [name for name, part in children.items() if part is child]:
        del module._modules[name]
    try:
        yield
    finally:
        module._modules.clear()
        module._modules.update(children)


def _keep_gathered(parameters: Sequence[Any], zero: Any) -> None:
    """Gather tensors now and, as DeepSpeed does with its persistent ones, after every update.

    Args:
        parameters: as stage 3 has converted them, with attributes and methods of its own.
        zero: the engine's optimiser.
    """
    for parameter in parameters:
        parameter.ds_persist = True
        parameter._z3_optimizer = zero  # DeepSpeed sets it on the tensors it finds, and these were hidden
    zero.persistent_parameters.extend(parameters)
    if parameters:
        parameters[0].all_gather(param_list=list(parameters))
