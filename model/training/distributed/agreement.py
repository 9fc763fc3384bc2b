"""Processes that decide something for themselves compare it with the first one's."""

from collections.abc import Sequence

import lightning as L
import torch

from configs.runtime.faults import SystemFault


def agree(trainer: L.Trainer, flags: Sequence[bool], what: str) -> None:
    """Stop all processes when one decided otherwise than the first.

    Args:
        trainer: tells the processes.
        flags: this process's decision.
        what: was decided.

    Raises:
        SystemFault: naming the decision.
    """
    if trainer.world_size == 1:
        return
    own = torch.tensor(flags, device=trainer.strategy.root_device)
    first = trainer.strategy.broadcast(own.clone())
    differs = torch.tensor(not torch.equal(own, first), dtype=torch.int32, device=own.device)
    torch.distributed.all_reduce(differs)
    if differs:
        words = f"{int(differs)} of {trainer.world_size} processes decided otherwise than the first"
        # All of them end; the first one says why.
        raise SystemFault(*([f"{what}: {words}"] if trainer.is_global_zero else []))
