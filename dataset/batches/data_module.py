"""Serve encoded splits to Lightning: the order is ours, no loader draws from the global generators."""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader

from configs.runtime.faults import InputFault
from configs.runtime.seeds import derive
from configs.schema.batch_limit import batches_per_device
from dataset.batches.sampling import EpochBatches, EvalBatches, ScoringBatches, first, mixed_order, spread
from dataset.encoding.collate import Collate
from dataset.encoding.encode import Encoded
from dataset.mixture.mixed_training_set import Blend


class TaskData(LightningDataModule):
    """The splits of one task. The Trainer needs `use_distributed_sampler=False`.

    Args:
        splits: split name -> tokens, as `encode` and `blend` made them.
        batch_size: examples a batch and rank.
        seed: the run's seed.
        pad_id: the id that fills up.
        length_grouped: batches of like length in training.
        num_workers: loading processes; they live as long as the loader.
        limit_test_samples: examples of each test set that are used.
    """

    def __init__(
        self,
        splits: Mapping[str, Encoded | Blend],
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
        # A short evaluation set may leave a rank of a distributed run without a batch.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._resumed = (0, 0)

    @property
    def dropped(self) -> dict[str, int]:
        """Examples of each split that encoding left without a target."""
        return {name: split.dropped for name, split in self.splits.items()}

    @property
    def cut(self) -> dict[str, int]:
        """Examples of each split that encoding shortened."""
        return {name: split.cut for name, split in self.splits.items()}

    def resume(self, epoch: int, done_batches: int) -> None:
        """Let training begin at an epoch behind the batches that are done; call it before `fit`."""
        self._resumed = (epoch, done_batches)

    def epoch_batches(self) -> EpochBatches:
        """Return this rank's training batches."""
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

    def left_out(self, world: int) -> int:
        """Return how many training examples an epoch of `world` processes leaves out."""
        return EpochBatches(len(self.splits["train"]), self.batch_size, self.seed, world=world).dropped

    def train_dataloader(self) -> DataLoader:
        """Return the training loader.

        Raises:
            InputFault: when the set does not fill one batch of every rank.
        """
        batches = self.epoch_batches()
        if len(batches) == 0:
            needed = self.batch_size * batches.world
            raise InputFault(
                f"--batch-size: {batches.count} examples do not fill a batch of {needed} over all ranks"
            )
        return self._loader("train", batches)

    def scoring_batches(self, limit: Callable[[int], int]) -> ScoringBatches:
        """Return which examples importance tests read: the first ones in stored order, of a mixture in turn.

        Args:
            limit: how many global batches are used, given how many an epoch has.
        """
        order = self.splits["train"].stored_order()
        return ScoringBatches(order, self.batch_size, limit, *self._place())

    def scoring_dataloader(self, batches: ScoringBatches) -> DataLoader:
        """Return this rank's share of them."""
        return self._loader("train", batches)

    def mixed_dataloader(self, limit: Callable[[int], int], draws: Random) -> DataLoader:
        """Return batches of training and validation examples in turn, in random orders.

        Args:
            limit: how many global batches are used, given how many there are.
            draws: generator of this mixture alone.
        """
        names = ("validation",) if "validation" in self.splits else self.validation_names
        held = [self.splits[name] for name in names]
        order = mixed_order(len(self.splits["train"]), sum(map(len, held)), draws)
        batches = ScoringBatches(order, self.batch_size, limit, *self._place())
        data = ConcatDataset([self.splits["train"], *held])
        generator = torch.Generator().manual_seed(derive(self.seed, "loader", "mixed"))
        return DataLoader(data, batch_sampler=batches, collate_fn=Collate(self.pad_id), generator=generator)

    def batches_of_device(self, devices: int) -> int:
        """Return how many batches of an epoch each of several devices computes: ceil(batches / devices)."""
        return batches_per_device(-(-len(self.splits["train"]) // self.batch_size), devices)

    def val_dataloader(self) -> list[DataLoader]:
        """Return `validation` and its further sets, in the order of `validation_names`."""
        return [self._evaluation(name) for name in self.validation_names]

    def looked_at(self, name: str, batches: int, examples: int) -> tuple[DataLoader, list[list[str]]]:
        """Return this rank's share of a few global batches of an evaluation set, and their examples' types.

        Of a set without types the first ones are taken; of one that tells them they are spread evenly over
        it, so that types which stand together in a file are seen alike.

        Args:
            name: the set.
            batches: how many global batches.
            examples: of a set with types so many at least, if it takes more batches.
        """
        split, (rank, world) = self.splits[name], self._place()
        if split.types:
            batches = max(batches, -(-examples // (self.batch_size * world)))
        choose = partial(spread if split.types else first, batches)
        sampler = EvalBatches(len(split), self.batch_size, rank, world, choose)
        types = [[split.types[row] for row in rows] for rows in sampler] if split.types else []
        return self._loader(name, sampler), types

    def types(self, name: str) -> list[str]:
        """Return the types of task of a set's examples, sorted; empty where it tells none."""
        return sorted(set(self.splits[name].types))

    def test_dataloader(self) -> list[DataLoader]:
        """Return the test set, or the validation sets of a task whose test set has no labels."""
        return [self._evaluation(name, self.limit_test_samples) for name in self.test_names]

    def predict_dataloader(self) -> list[DataLoader]:
        """Return the sets without labels."""
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

    def _evaluation(self, name: str, limit: int | None = None) -> DataLoader:
        held = len(self.splits[name])
        count = held if limit is None else min(limit, held)
        return self._loader(name, EvalBatches(count, self.batch_size, *self._place()))

    def _loader(self, name: str, batches: EpochBatches | EvalBatches | ScoringBatches) -> DataLoader:
        split = self.splits[name]
        return DataLoader(
            split,
            batch_sampler=batches,
            collate_fn=Collate(self.pad_id, "left" if split.purpose == "generate" else "right"),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            # Making an iterator draws a number; without an own generator it is the global one's.
            generator=torch.Generator().manual_seed(derive(self.seed, "loader", name)),
        )

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
