"""Serve encoded splits to Lightning: the data order is our own, no loader uses the global generators."""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from configs.schema.batch_limit import batches_per_device
from dataset.batches.sampling import (
    EpochBatches,
    EvalBatches,
    ScoringBatches,
    evenly_spaced,
    first,
    mixed_order,
)
from dataset.encoding.collate import Collate
from dataset.encoding.encoded_split import EncodedSplit, Item


class _Items(Dataset[Item]):
    """A split as the class that a DataLoader takes."""

    def __init__(self, split: EncodedSplit) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Item:
        return self._split[index]


class TaskData(LightningDataModule):
    """The splits of a run as batches. The Trainer needs `use_distributed_sampler=False`.

    Args:
        splits: split name -> its examples, from `encode` and `mix_training_splits`.
        batch_size: examples per batch and process.
        seed: the run's seed.
        pad_id: token id of padding.
        length_grouped: whether training batches hold examples of similar length.
        num_workers: number of loading processes; they live as long as the loader.
        limit_test_samples: number of examples of each test set that are used; None for all.
    """

    def __init__(
        self,
        splits: Mapping[str, EncodedSplit],
        batch_size: int,
        seed: int,
        pad_id: int,
        length_grouped: bool = False,
        num_workers: int = 0,
        limit_test_samples: int | None = None,
    ) -> None:
        super().__init__()
        self.splits = dict(splits)
        self.batch_size = batch_size
        self.seed = seed
        self.pad_id = pad_id
        self.length_grouped = length_grouped
        self.num_workers = num_workers
        self.limit_test_samples = limit_test_samples
        # A short evaluation set may leave a process of a distributed run without a batch.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._resumed = (0, 0)

    @property
    def dropped(self) -> dict[str, int]:
        """Split name -> number of examples left out because truncation left no target."""
        return {name: split.dropped for name, split in self.splits.items()}

    @property
    def cut(self) -> dict[str, int]:
        """Split name -> number of examples that were truncated."""
        return {name: split.cut for name, split in self.splits.items()}

    @property
    def unscored(self) -> dict[str, int]:
        """Split name -> number of examples that `limit_test_samples` leaves out of a test or of predictions.

        During training, validation sets are evaluated in full.
        """
        limit, names = self.limit_test_samples, (*self.test_names, *self.predict_names)
        if limit is None:
            return {}
        full = self.validation_names if "train" in self.splits else ()
        return {name: max(0, len(self.splits[name]) - limit) for name in names if name not in full}

    def resume(self, epoch: int, done_batches: int) -> None:
        """Let training begin in an epoch after the batches that are done; call it before `fit`."""
        self._resumed = (epoch, done_batches)

    def epoch_batches(self) -> EpochBatches:
        """Return this process's training batches."""
        train = self.splits["train"]
        rank, world = self._place()
        lengths = train.lengths if self.length_grouped else None
        draw = train.draw(self.seed)
        batches = EpochBatches(len(train), self.batch_size, self.seed, rank, world, lengths, draw)
        batches.resume(*self._resumed)
        return batches

    def epoch_length(self, world: int) -> int:
        """Return how many batches an epoch of `world` processes has on each of them."""
        return len(EpochBatches(len(self.splits["train"]), self.batch_size, self.seed, world=world))

    def dropped_per_epoch(self, world: int) -> int:
        """Return how many training examples an epoch of `world` processes leaves out."""
        return EpochBatches(len(self.splits["train"]), self.batch_size, self.seed, world=world).dropped

    def train_dataloader(self) -> DataLoader[Item]:
        """Return the training loader.

        Raises:
            InputFault: when the examples do not fill one batch of every process.
        """
        batches = self.epoch_batches()
        if len(batches) == 0:
            needed = self.batch_size * batches.world
            raise InputFault(
                f"--batch-size: {batches.count} examples do not fill a batch of {needed} over all processes"
            )
        return self._loader("train", batches)

    def scoring_batches(self, limit: Callable[[int], int]) -> ScoringBatches:
        """Return which examples importance tests read: the first in stored order, parts interleaved.

        Args:
            limit: number of global batches in an epoch -> number that are used.
        """
        order = self.splits["train"].stored_order()
        return ScoringBatches(order, self.batch_size, limit, *self._place())

    def scoring_dataloader(self, batches: ScoringBatches) -> DataLoader[Item]:
        """Return the loader of this process's scoring batches."""
        return self._loader("train", batches)

    def mixed_dataloader(self, limit: Callable[[int], int], draws: Random) -> DataLoader[Item]:
        """Return batches of alternating training and validation examples, each in random order.

        Args:
            limit: number of global batches there are -> number that are used.
            draws: generator used for this order only.
        """
        names = ("validation",) if "validation" in self.splits else self.validation_names
        held = [self.splits[name] for name in names]
        order = mixed_order(len(self.splits["train"]), sum(map(len, held)), draws)
        batches = ScoringBatches(order, self.batch_size, limit, *self._place())
        data: ConcatDataset[Item] = ConcatDataset([_Items(split) for split in (self.splits["train"], *held)])
        generator = torch.Generator().manual_seed(derive(self.seed, "loader", "mixed"))
        return DataLoader(data, batch_sampler=batches, collate_fn=Collate(self.pad_id), generator=generator)

    def batches_of_device(self, devices: int) -> int:
        """Return how many batches of an epoch each of several devices computes: ceil(batches / devices)."""
        return batches_per_device(-(-len(self.splits["train"]) // self.batch_size), devices)

    def val_dataloader(self) -> list[DataLoader[Item]]:
        """Return the loaders of the validation sets, in the order of `validation_names`."""
        return [self._evaluation(name) for name in self.validation_names]

    def evaluation_sample(
        self, name: str, batches: int, examples: int
    ) -> tuple[DataLoader[Item], list[list[str]]]:
        """Return this process's share of a few global batches of an evaluation set, and their task types.

        Without task types the first batches are taken; with them batches evenly spaced over the set, because
        rows of one type may be adjacent in a file.

        Args:
            name: the set.
            batches: number of global batches.
            examples: least number of examples of a set with task types; it may need more batches.

        Returns:
            The loader; and for each of its batches the examples' task types, empty without any.
        """
        split, (rank, world) = self.splits[name], self._place()
        if split.task_types:
            batches = max(batches, -(-examples // (self.batch_size * world)))
        choose = partial(evenly_spaced if split.task_types else first, batches)
        sampler = EvalBatches(len(split), self.batch_size, rank, world, choose)
        types = [[split.task_types[row] for row in rows] for rows in sampler] if split.task_types else []
        return self._loader(name, sampler), types

    def task_types(self, name: str) -> list[str]:
        """Return the distinct task types of a set's examples, sorted; empty where its rows state none."""
        return sorted(set(self.splits[name].task_types))

    def test_dataloader(self) -> list[DataLoader[Item]]:
        """Return the loaders of the test sets, or of the validation sets where no test set has labels."""
        return [self._evaluation(name, self.limit_test_samples) for name in self.test_names]

    def predict_dataloader(self) -> list[DataLoader[Item]]:
        """Return the loaders of the sets without labels."""
        return [self._evaluation(name, self.limit_test_samples) for name in self.predict_names]

    @property
    def validation_names(self) -> tuple[str, ...]:
        """Names of the validation loaders."""
        return tuple(name for name in self.splits if name == "validation" or name.startswith("validation_"))

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names of the test loaders; a part of a mixture without a test set has its validation set there."""
        tests = {name for name, split in self.splits.items() if split.purpose != "predict"}
        further = tuple(name for name in self.splits if name in tests and name.startswith("test_"))
        return ("test", *further) if "test" in tests else (*further, *self.validation_names)

    @property
    def predict_names(self) -> tuple[str, ...]:
        """Names of the prediction loaders."""
        return tuple(name for name, split in self.splits.items() if split.purpose == "predict")

    def _evaluation(self, name: str, limit: int | None = None) -> DataLoader[Item]:
        held = len(self.splits[name])
        count = held if limit is None else min(limit, held)
        return self._loader(name, EvalBatches(count, self.batch_size, *self._place()))

    def _loader(self, name: str, batches: EpochBatches | EvalBatches | ScoringBatches) -> DataLoader[Item]:
        split = self.splits[name]
        return DataLoader(
            _Items(split),
            batch_sampler=batches,
            collate_fn=Collate(self.pad_id, "left" if split.purpose == "generate" else "right"),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Creating an iterator draws a number; without a generator of its own it is the global one's.
            generator=torch.Generator().manual_seed(derive(self.seed, "loader", name)),
        )

    def _place(self) -> tuple[int, int]:
        """Return this process's rank and the number of processes."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
