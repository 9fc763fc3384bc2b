"""Row 19: throughput of two gloo processes against one, OPT-256; by wall time, as this one must be."""

import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import Queue
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.hosts import Host, add_lora, opt_256, step, trained
from benchmarks.measure import ROUNDS, Report, pin

_STEPS = 20
_SHAPE = (4, 64)


class _Learner(nn.Module):
    """What DDP wraps: network, adapters and the loss as forward."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host = host
        self.network = host.network
        self.adapters = nn.ModuleList(add_lora(host).values())

    def forward(self) -> torch.Tensor:
        """Return the batch's loss."""
        return self.host.objective.loss(self.network, self.host.batch)


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(_STEPS):
        run()
    return time.perf_counter() - begin


def _work(rank: int, meeting: str, queue: Queue) -> None:
    """Be one of two processes: rank 0 also measures itself alone while the other waits."""
    torch.set_num_threads(1)
    pin(rank)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    alone = _Learner(opt_256(shape=_SHAPE))
    runs = {"one": step(alone.host, trained(alone), loss=alone)}
    for name, find in (("two", False), ("two, find_unused", True)):
        learner = _Learner(opt_256(shape=_SHAPE))
        wrapped = DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=find)
        runs[name] = step(learner.host, trained(learner), loss=wrapped)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(2 + ROUNDS):
        for name, run in runs.items():
            dist.barrier()
            spent = _timed(run) if name != "one" or rank == 0 else 0.0
            if number >= 2:
                times[name].append(spent)
    dist.barrier()
    if rank == 0:
        queue.put(times)
    dist.destroy_process_group()


def main() -> None:
    """Start both processes and report examples a second, two against one."""
    context = get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"
    with TemporaryDirectory() as folder:
        queue = context.Queue()
        workers = [
            context.Process(target=_work, args=(rank, f"{folder}/meeting", queue)) for rank in range(2)
        ]
        for worker in workers:
            worker.start()
        times = queue.get(timeout=900)
        for worker in workers:
            worker.join()
    report = Report(
        "19", "OPT hidden 256, LoRA r 8 on all linears, fp32 4x64 a process, throughput of 2 over 1"
    )
    for name, goal in (("two", 1.85), ("two, find_unused", None)):
        gains = [2 * one / both for one, both in zip(times["one"], times[name])]
        report.add(name, gains, goal=goal, peer="1.44" if goal else "", higher_is_better=True)
    report.finish()


if __name__ == "__main__":
    main()
