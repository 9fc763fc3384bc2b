"""Which examples stand in which batch: pure functions of seed, epoch, rank and world.

Data order belongs to the run, not to the loader: resuming needs only an epoch and a number of batches done.
"""

from collections.abc import Iterator, Sequence

import torch

from configs.seeds import derive

_CHUNK_BATCHES = 50


class EpochBatches:
    """Batches of a training epoch; global batch k is cut in rank order.

    Args:
        count: examples in the training set.
        batch_size: examples a batch and rank.
        seed: the run's seed.
        rank: this process.
        world: number of processes.
        lengths: token counts; given, batches hold examples of like length.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.epoch = 0
        self._resumed = (0, 0)
        # Lightning calls set_epoch on `batch_sampler.sampler` alone.
        self.sampler = self

    @property
    def dropped(self) -> int:
        """Examples an epoch leaves out: a tail that does not fill every rank of a distributed run."""
        return self.count % (self.batch_size * self.world) if self.world > 1 else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def resume(self, epoch: int, done_batches: int) -> None:
        """Begin at `epoch` behind the batches that are done; every other epoch is whole."""
        self.epoch = epoch
        self._resumed = (epoch, done_batches)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return all batches of this rank in an epoch."""
        begin, end = self.rank * self.batch_size, (self.rank + 1) * self.batch_size
        return [part for batch in self._global_batches(epoch) if (part := batch[begin:end])]

    def __iter__(self) -> Iterator[list[int]]:
        # The offset lasts as long as its epoch: Lightning makes one or two iterators before it begins.
        epoch, done = self._resumed
        yield from self.batches(self.epoch)[done if self.epoch == epoch else 0 :]

    def __len__(self) -> int:
        size = self.batch_size * self.world
        return self.count // size if self.world > 1 else -(-self.count // size)

    def _global_batches(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(derive(self.seed, "batches", epoch))
        order = torch.randperm(self.count, generator=generator)  # (count,)
        order = order[: self.count - self.dropped]
        size = self.batch_size * self.world
        if self.lengths is None:
            return [part.tolist() for part in order.split(size)] if len(order) else []
        batches: list[list[int]] = []
        for chunk in order.split(size * _CHUNK_BATCHES) if len(order) else ():
            by_length = chunk[torch.argsort(self.lengths[chunk], stable=True)]
            batches += [part.tolist() for part in by_length.split(size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]


class EvalBatches:
    """Batches of an evaluation set: every example once over all ranks, in stored order, nothing padded.

    Global batches are cut in rank order as in training; the tail is shared out evenly, so that the number of
    batches may differ by one between ranks.

    Args:
        count: examples.
        batch_size: examples a batch and rank.
        rank: this process.
        world: number of processes.
    """

    def __init__(self, count: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.sampler = self

    def batches(self) -> list[list[int]]:
        """Return all batches of this rank."""
        size = self.batch_size * self.world
        cuts = []
        for begin in range(0, self.count, size):
            held = min(size, self.count - begin)
            # Rounded up: what is too short for all ranks falls to the first, which reports.
            first, last = (-(-held * rank // self.world) for rank in (self.rank, self.rank + 1))
            cuts.append((begin + first, begin + last))
        return [list(range(first, last)) for first, last in cuts if last > first]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()

    def __len__(self) -> int:
        return len(self.batches())
