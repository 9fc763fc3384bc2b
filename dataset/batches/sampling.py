"""Which examples form which batch: pure functions of seed, epoch, rank and number of processes.

Data order belongs to the run, not to the loader: resuming needs only the epoch and the number of batches
done.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch

from configs.runtime.seeds import derive
from dataset.encoding.encoded_split import Draw

_CHUNK_BATCHES = 50


class EpochBatches:
    """Batches of a training epoch; each global batch is split among the processes in rank order.

    Args:
        count: number of examples in the training set.
        batch_size: examples per batch and process.
        seed: the run's seed.
        rank: number of this process.
        world: number of processes.
        lengths: number of tokens of each example, to group examples of similar length; None does not group.
        draw: epoch -> its `count` examples; without it every epoch holds each example once.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        lengths: Sequence[int] | None = None,
        draw: Draw | None = None,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.lengths = None if lengths is None else torch.as_tensor(lengths)
        self.draw = draw
        self.epoch = 0
        self._resumed = (0, 0)
        # Lightning calls set_epoch on `batch_sampler.sampler` alone.
        self.sampler = self

    @property
    def dropped(self) -> int:
        """Examples that an epoch leaves out: a rest that does not fill every process of a distributed run."""
        return self.count % (self.batch_size * self.world) if self.world > 1 else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def resume(self, epoch: int, done_batches: int) -> None:
        """Begin `epoch` after the batches that are done; every other epoch is complete."""
        self.epoch = epoch
        self._resumed = (epoch, done_batches)

    def batches(self, epoch: int) -> list[list[int]]:
        """Return all batches of this process in an epoch, as lists of example indices."""
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
        if self.draw is not None:
            order = self.draw(epoch)[order]
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
    """Batches of an evaluation set: every example once over all processes, in stored order, no duplicates.

    Global batches are split in rank order as in training; the last one is split evenly, so that the number of
    batches may differ by one between processes.

    Args:
        count: number of examples.
        batch_size: examples per batch and process.
        rank: number of this process.
        world: number of processes.
        choose: number of global batches -> the indices of those that are used; None for all.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        choose: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.choose = choose
        self.sampler = self

    def batches(self) -> list[list[int]]:
        """Return all batches of this process, as lists of example indices."""
        size = self.batch_size * self.world
        begins, cuts = range(0, self.count, size), []
        for begin in begins if self.choose is None else (begins[k] for k in self.choose(len(begins))):
            held = min(size, self.count - begin)
            # Rounded up: a batch too short for all processes goes to the first one, which reports.
            first, last = (-(-held * rank // self.world) for rank in (self.rank, self.rank + 1))
            cuts.append((begin + first, begin + last))
        return [list(range(first, last)) for first, last in cuts if last > first]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()

    def __len__(self) -> int:
        return len(self.batches())


def first(most: int, count: int) -> range:
    """Return the first indices below `count`, at most `most` of them."""
    return range(min(most, count))


def evenly_spaced(most: int, count: int) -> list[int]:
    """Return evenly spaced indices below `count`, at most `most` of them."""
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


class ScoringBatches:
    """The first batches of the training set in stored order; the processes take whole global batches in turn.

    Process r computes the global batches r, r + world, ..., each at its full size. Thus the same batches are
    computed on any number of processes, and sums over all of them agree to the last digits; a batch that is
    split in rank order would be rounded differently.

    Args:
        order: example indices of an epoch in stored order.
        batch_size: examples per batch and process.
        limit: number of global batches of an epoch -> number that are used.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(
        self,
        order: Sequence[int],
        batch_size: int,
        limit: Callable[[int], int],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.order = order
        self.size = batch_size * world
        # At least one: an epoch has none where the examples do not fill every process.
        self.total = limit(max(1, len(EpochBatches(len(order), batch_size, 0, world=world))))
        self.examples = min(len(order), self.total * self.size)
        self.rank = rank
        self.world = world
        self.sampler = self

    def batches(self) -> list[list[int]]:
        """Return all batches of this process, as lists of example indices."""
        begins = range(self.rank * self.size, self.examples, self.world * self.size)
        return [list(self.order[begin : min(begin + self.size, self.examples)]) for begin in begins]

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()

    def __len__(self) -> int:
        return len(self.batches())


def mixed_order(train: int, validation: int, draws: Random) -> list[int]:
    """Return alternating training and validation examples, each in random order, a training example first.

    Surplus training examples are left out; surplus validation examples follow at the end.

    Args:
        train: number of training examples, whose indices begin at 0.
        validation: number of validation examples, whose indices follow those of the training examples.
        draws: generator used for this order only.
    """
    first = sorted(range(train), key=lambda _: draws.random())[:validation]
    second = sorted(range(train, train + validation), key=lambda _: draws.random())
    pairs = [index for pair in zip(first, second) for index in pair]
    return pairs + second[len(first) :]
