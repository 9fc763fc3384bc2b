"""Check that all processes took the same decision, where each of them takes it on its own."""

from collections.abc import Sequence

import lightning as L
import torch

from configs.runtime.faults import SystemFault


def require_agreement(trainer: L.Trainer, flags: Sequence[bool], what: str) -> None:
    """End the run on all processes when one decided differently from the first.

    Args:
        trainer: its strategy broadcasts the first process's flags.
        flags: this process's decision; of the same length on all processes.
        what: names the decision in the message.

    Raises:
        SystemFault: naming the decision and how many processes differ; the first process has the line.
    """
    if trainer.world_size == 1:
        return
    own = torch.tensor(flags, device=trainer.strategy.root_device)
    first = trainer.strategy.broadcast(own.clone())
    differs = torch.tensor(not torch.equal(own, first), dtype=torch.int32, device=own.device)
    torch.distributed.all_reduce(differs)
    if differs:
        count = f"{int(differs)} of {trainer.world_size} processes decided differently from the first"
        # All processes end; only the first one prints the reason.
        raise SystemFault(*([f"{what}: {count}"] if trainer.is_global_zero else []))
