"""Parts are numbered through, and one that would never be seen is refused."""

import pytest
import torch

from configs.runtime.faults import InputFault
from dataset.batches.data_module import TaskData
from dataset.encoding.encode import encode_pairs
from dataset.mixture.mixed_training_set import MixedTrainingSet, mix_training_splits
from dataset.mixture.parts import Part
from dataset.task import Example, Selection, Task
from tests.support.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
TASK = Task("any", "language_modeling", {}, lambda row: row, ("loss",), Selection("loss", False))


def pairs(letter, count):
    return encode_pairs([Example((letter * (i + 1),), response="yes") for i in range(count)], TOKENIZER, 64)


def parts(*weights):
    return tuple(
        Part(TASK, "", None, "ab"[number], weight, f"[[data.mix]] {number + 1}")
        for number, weight in enumerate(weights)
    )


def splits(first=5, second=3):
    return {"train_a": pairs("a", first), "validation_a": pairs("a", 2), "train_b": pairs("b", second)}


def texts(loader):
    return [
        TOKENIZER.decode(ids, skip_special_tokens=True).removesuffix("yes")
        for batch in loader
        for ids in batch["input_ids"]
    ]


def test_examples_keep_their_own_tokens_and_masks():
    held = splits()
    train = MixedTrainingSet([held["train_a"], held["train_b"]], None)
    assert len(train) == 8
    for index in range(8):
        own = held["train_a"][index] if index < 5 else held["train_b"][index - 5]
        assert all(torch.equal(train[index][name], tensor) for name, tensor in own.items())
    assert train.lengths == [*held["train_a"].lengths, *held["train_b"].lengths]


def test_an_epoch_is_drawn_by_weight_and_stored_order_alternates():
    mixed, shares = mix_training_splits(splits(), parts(1.0, 3.0))
    assert shares == {"a": 2, "b": 6}
    data = TaskData(mixed, batch_size=4, seed=0, pad_id=1)
    seen = texts(data.train_dataloader())
    assert sorted(word for word in seen if "b" in word) == ["b", "b", "bb", "bb", "bbb", "bbb"]
    assert len({word for word in seen if "a" in word}) == 2
    scoring = data.scoring_dataloader(data.scoring_batches(lambda total: total))
    assert texts(scoring) == ["b", "a", "bb", "bbb", "b", "aa", "bb", "bbb"]
    assert data.dropped == {"train_a": 0, "validation_a": 0, "train_b": 0, "train": 0}
    assert data.validation_names == ("validation_a",)


def test_without_weights_an_epoch_is_the_union():
    mixed, shares = mix_training_splits(splits(), parts(None, None))
    assert shares == {"a": 5, "b": 3}
    data = TaskData(mixed, batch_size=3, seed=0, pad_id=1, length_grouped=True)
    assert sorted(texts(data.train_dataloader())) == ["a" * n for n in range(1, 6)] + ["b", "bb", "bbb"]


def test_parts_without_examples_are_refused():
    with pytest.raises(InputFault) as caught:
        mix_training_splits(splits(), parts(1.0, 0.01))
    assert caught.value.lines == ("[[data.mix]] 2: weight: 0.01 gives 'b' none of an epoch's 8 examples",)


def test_splits_without_a_target_are_refused():
    with pytest.raises(InputFault) as caught:
        mix_training_splits(splits(second=0) | {"validation_b": pairs("b", 0)}, parts(None, None))
    assert caught.value.lines == (
        "--max-token-len: no row of train_b keeps a target within it",
        "--max-token-len: no row of validation_b keeps a target within it",
    )
    with pytest.raises(InputFault, match="no row of validation keeps a target"):
        mix_training_splits({"train": pairs("a", 3), "validation": pairs("a", 0)}, (Part(TASK, "", None),))


def test_one_data_set_and_untrained_mixtures_stay():
    held = splits()
    assert mix_training_splits({"train": held["train_a"]}, (Part(TASK, "", None),)) == (
        {"train": held["train_a"]},
        {},
    )
    tested = {"test_a": held["train_a"], "validation_b": held["train_b"]}
    assert mix_training_splits(tested, parts(1.0, 1.0)) == (tested, {})
    assert TaskData(tested, 2, 0, 1).test_names == ("test_a", "validation_b")
