"""What a run requires of its data; `dataset` provides it, which `model` may not import."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from model.training.objective import Batch


class Lengths(Protocol):
    """An encoded split, as far as a run looks at one."""

    @property
    def lengths(self) -> Sequence[int]:
        """Number of tokens of each example, (N,)."""
        ...


class ScoringBatches(Protocol):
    """The training batches that a heuristic reads."""

    @property
    def total(self) -> int:
        """Number of global batches."""
        ...

    @property
    def examples(self) -> int:
        """Number of their examples."""
        ...


class RunData(Protocol):
    """The batches of a run. The object is a LightningDataModule too, see `Job.datamodule`.

    The methods are described where they are implemented, in `dataset.batches.data_module.TaskData`.
    """

    @property
    def splits(self) -> Mapping[str, Lengths]:
        """Split name -> its examples."""
        ...

    @property
    def validation_names(self) -> tuple[str, ...]:
        """Names of the validation sets, in the order of `val_dataloader`."""
        ...

    @property
    def test_names(self) -> tuple[str, ...]:
        """Names of the test sets; those of the validation sets where no test set has labels."""
        ...

    @property
    def predict_names(self) -> tuple[str, ...]:
        """Names of the sets without labels."""
        ...

    def resume(self, epoch: int, done_batches: int) -> None:
        """Let training begin in an epoch after the batches that are done."""
        ...

    def epoch_length(self, world: int) -> int:
        """Return how many batches an epoch of `world` processes has on each of them."""
        ...

    def dropped_per_epoch(self, world: int) -> int:
        """Return how many training examples an epoch of `world` processes leaves out."""
        ...

    def batches_of_device(self, devices: int) -> int:
        """Return how many batches of an epoch each of several devices computes."""
        ...

    def scoring_batches(self, limit: Callable[[int], int]) -> ScoringBatches:
        """Return which examples importance tests read, given how many global batches are used of how many."""
        ...

    def scoring_dataloader(self, batches: Any) -> Iterable[Batch]:  # Any: of the class that the data chose
        """Return this process's share of what `scoring_batches` returned."""
        ...

    def mixed_dataloader(self, limit: Callable[[int], int], draws: Random) -> Iterable[Batch]:
        """Return batches of alternating training and validation examples, each in random order."""
        ...

    def val_dataloader(self) -> Sequence[Iterable[Batch]]:
        """Return this process's batches of each validation set."""
        ...

    def evaluation_sample(
        self, name: str, batches: int, examples: int
    ) -> tuple[Iterable[Batch], list[list[str]]]:
        """Return this process's share of a few batches of an evaluation set, and their task types."""
        ...

    def task_types(self, name: str) -> list[str]:
        """Return the distinct task types of a set's examples, sorted."""
        ...
