"""Hand a module over to a DeepSpeed engine, and take it back as it was.

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
_LEFT = ("_z3_leaf", "_external_params", "external_parameters", "all_parameters", "_original_parameters")
_LEFT += ("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt")
"""What stage 3 sets on every module, beside names that begin with `ds_`."""


@dataclass(frozen=True)
class Stage:
    """What of a run DeepSpeed shares out.

    Args:
        number: 2, optimiser and gradients; 3, the weights too.
        offload: whether weights and optimiser lie in host memory; with stage 3.
        clip: largest gradient norm, or None.
        precision: Lightning's word; 32-true or bf16-mixed.
        batch_size: examples per process and batch; the engine demands it and only counts with it.
    """

    number: int
    offload: bool = False
    clip: float | None = None
    precision: str = "32-true"
    batch_size: int = 1

    def config(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration.

        Layers are gathered one by one and never ahead: which ones are at hand would depend on the passes a
        process made before, and a gathering that one process leaves out stops all of them.
        """
        zero: dict[str, Any] = {"stage": self.number, "overlap_comm": False}
        if self.number == 3:
            zero |= dict.fromkeys(("stage3_prefetch_bucket_size", "stage3_max_reuse_distance"), 0)
            zero["stage3_param_persistence_threshold"] = 0
        if self.offload:
            zero |= {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
        config = {
            "train_micro_batch_size_per_gpu": self.batch_size,
            "gradient_accumulation_steps": 1,  # the strategy says which batch ends an update
            "gradient_clipping": self.clip or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": zero,
        }
        if self.precision in _AUTOCAST:
            # Gradients are exchanged as they are: no module's are cast down for it.
            kind = {"enabled": True, "dtype": _AUTOCAST[self.precision], "lower_precision_safe_modules": []}
            config["torch_autocast"] = kind
        return config


@dataclass
class Shares:
    """A module in an engine's hands.

    Args:
        module: the whole of what runs.
        engine: DeepSpeed's engine over it.
    """

    module: nn.Module
    engine: Any
    _linear: Any = None
    _modules: Mapping[nn.Module, dict[str, Any]] = field(default_factory=dict)
    _tensors: Mapping[nn.Parameter, dict[str, Any]] = field(default_factory=dict)

    def parameter(self, parameter: nn.Parameter) -> Tensor:
        """Return a trained tensor whole; with stage 3 all processes must ask for it."""
        if hasattr(parameter, "ds_id"):
            return deepspeed.utils.safe_get_full_fp32_param(parameter)
        return parameter.detach()

    def link(self) -> None:
        """Let `state` and `set_state` find the optimiser's tensors, once it has some.

        With stage 2 DeepSpeed itself looks after the first group's first update, and misses the other groups.
        """
        zero = self.engine.optimizer
        for group, flat in zip(getattr(zero, "bit16_groups", ()), self.flats()):
            lazy_init_hp_params_optimizer_state(group, flat, zero.optimizer.state)

    def state(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Return an optimiser's tensor for a trained one, in its shape; all processes must ask for it."""
        return deepspeed.utils.safe_get_full_optimizer_state(parameter, key)

    def set_state(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Take this process's share of an optimiser's tensor over."""
        value = value.to(self.engine.device)
        if not hasattr(parameter, "ds_id"):
            deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
            return
        size = parameter.ds_tensor.numel()  # the last share is padded; DeepSpeed's own setter forgets that
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        padded = nn.functional.pad(value.flatten(), (0, size * world - value.numel()))
        share = padded.narrow(0, size * rank, size)
        deepspeed.utils.safe_set_local_optimizer_state(parameter, share, key)

    def flats(self) -> Sequence[Tensor]:
        """Return this process's shares as the optimiser sees them, flat."""
        zero = self.engine.optimizer
        three = hasattr(zero, "fp32_partitioned_groups_flat")
        return zero.fp32_partitioned_groups_flat if three else zero.single_partition_of_fp32_groups

    def take_back(self) -> None:
        """Make every tensor whole on the host again and remove what the engine left; all must call it."""
        whole = {}
        for parameter in self._tensors:
            with deepspeed.zero.GatheredParameters([parameter]):
                whole[parameter] = parameter.detach().to("cpu", copy=True)
        self.engine.destroy()
        self.engine.module_forward_pre_hook.remove()
        self.engine.module_forward_post_hook.remove()
        for module, before in self._modules.items():
            for name in set(vars(module)) - set(before):
                if name.startswith("ds_") or name in _LEFT:
                    delattr(module, name)
            vars(module)["_parameters"] = before["_parameters"]
        for parameter, before in self._tensors.items():
            vars(parameter).clear()
            vars(parameter).update(before)
            parameter.data, parameter.grad = whole[parameter], None
        nn.functional.linear = self._linear


def hand_over(
    module: nn.Module,
    stage: Stage,
    device: torch.device,
    leaves: Sequence[nn.Module],
    uncalled: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> Shares:
    """Move a module to a device and let DeepSpeed share it out; no random state is touched.

    Args:
        module: the whole of what runs; every process holds the same tensors.
        stage: how much is shared out.
        device: where it computes.
        leaves: modules whose tensors are gathered together, the layers.
        uncalled: holds tensors that are used without calling it, the adapters; they stay gathered.
        optimizer: over the trained tensors; None to evaluate only.
    """
    drawn = random_states()
    logger.setLevel("ERROR")
    shares = Shares(
        module,
        None,
        nn.functional.linear,
        {part: dict(vars(part)) for part in module.modules()},
        {p: dict(vars(p)) for p in module.parameters()},
    )
    config = stage.config()
    trained = [p for p in module.parameters() if p.requires_grad] if optimizer else []
    with redirect_stdout(io.StringIO()):  # it reports the building of kernels
        deepspeed.init_distributed(torch.distributed.get_backend(), dist_init_required=False)
        if stage.number == 3:
            for leaf in leaves:
                set_z3_leaf_module(leaf, True)
            # Before the device sees them, so that it never holds more than one whole layer.
            deepspeed.zero.Init(module=module, config_dict_or_path=config)
        module.to(device)
        with _hidden(module, uncalled) if stage.number == 3 else nullcontext():
            shares.engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=optimizer,
                model_parameters=trained,
                config=config,
                dist_init_required=False,
            )
    if stage.number == 3:
        _keep_gathered(list(uncalled.parameters()), shares.engine.optimizer)
    restore_random_states(drawn)
    return shares


@contextmanager
def _hidden(module: nn.Module, child: nn.Module) -> Iterator[None]:
    """Keep the engine's hooks, which gather and let go at every call, from a child that is read uncalled."""
    children = dict(module._modules)
    for name in [name for name, part in children.items() if part is child]:
        del module._modules[name]
    try:
        yield
    finally:
        module._modules.clear()
        module._modules.update(children)


def _keep_gathered(parameters: Sequence[nn.Parameter], zero: Any) -> None:
    """Gather tensors now and, as DeepSpeed does with its persistent ones, after every update."""
    for parameter in parameters:
        parameter.ds_persist = True
        parameter._z3_optimizer = zero  # DeepSpeed sets it on what it walks over, and these were hidden
    zero.persistent_parameters.extend(parameters)
    if parameters:
        parameters[0].all_gather(param_list=list(parameters))
