"""Lightning sees our order, epoch after epoch, and its global generators stay still."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from configs.runtime.faults import InputFault
from dataset.batches.data_module import TaskData
from dataset.batches.sampling import EpochBatches
from dataset.encoding.encode import encode, encode_pairs, encode_prompts, encode_texts
from dataset.task import Example
from dataset.tasks.mrpc import TASK as MRPC
from tests.support.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer(encoder=True)


def letters(count):
    return [chr(ord("a") + index % 26) * (1 + index // 26) for index in range(count)]


def classification(train=11, labelled_test=False):
    def labelled(count):
        return encode_texts([Example((t,), label=i % 2) for i, t in enumerate(letters(count))], TOKENIZER, 64)

    bare = encode_texts([Example((text,)) for text in letters(3)], TOKENIZER, 64)
    return {
        "train": labelled(train),
        "validation": labelled(5),
        "validation_mismatched": labelled(4),
        "test": labelled(6) if labelled_test else bare,
    }


def data(splits=None, **facts):
    return TaskData(splits or classification(), **({"batch_size": 4, "seed": 5, "pad_id": 1} | facts))


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.held = [], []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, texts(batch)))
        return self.weight * 0

    def validation_step(self, batch, number, dataloader_idx=0):
        self.held.append((dataloader_idx, texts(batch)))

    test_step = validation_step

    def predict_step(self, batch, number, dataloader_idx=0):
        return batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def texts(batch):
    rows = zip(batch["input_ids"], batch["attention_mask"])
    return [TOKENIZER.decode(ids[mask.bool()], skip_special_tokens=True) for ids, mask in rows]


def trainer(**facts):
    quiet = dict(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    return Trainer(accelerator="cpu", devices=1, use_distributed_sampler=False, **quiet, **facts)


def expected(epochs, count=11):
    sampler, names = EpochBatches(count, 4, 5), letters(count)
    return [(epoch, [names[i] for i in batch]) for epoch in epochs for batch in sampler.batches(epoch)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_fit_takes_each_epochs_own_order(num_workers):
    learner = Recorder()
    trainer(max_epochs=3).fit(learner, datamodule=data(num_workers=num_workers))
    assert learner.seen == expected(range(3))
    assert learner.held[-1] == (1, ["a", "b", "c", "d"])


def test_resumed_data_begin_behind_what_is_done():
    held = data()
    held.resume(1, 2)
    loader = held.train_dataloader()
    assert [texts(batch) for batch in loader] == [names for _, names in expected([1])][2:]
    assert len(loader) == 3
    loader.batch_sampler.sampler.set_epoch(2)
    assert [texts(batch) for batch in loader] == [names for _, names in expected([2])]


def test_iterating_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    held = data(length_grouped=True)
    for loader in [held.train_dataloader(), *held.val_dataloader(), scoring(held, 3)]:
        list(loader)
    assert torch.equal(torch.get_rng_state(), state)


def scoring(held, limit):
    return held.scoring_dataloader(held.scoring_batches(lambda total: min(limit, total)))


def test_scoring_reads_the_first_batches_in_stored_order():
    assert sum((texts(batch) for batch in scoring(data(), 9)), []) == letters(11)
    assert [texts(batch) for batch in scoring(data(), 2)] == [letters(11)[:4], letters(11)[4:8]]


def test_loaders_have_names():
    held = data()
    assert held.validation_names == held.test_names == ("validation", "validation_mismatched")
    assert held.predict_names == ("test",)
    assert [len(loader) for loader in held.val_dataloader()] == [2, 1]
    assert data(classification(labelled_test=True)).test_names == ("test",)


def test_test_samples_can_be_limited():
    held = data(classification(labelled_test=True), limit_test_samples=3)
    assert [texts(batch) for batch in held.test_dataloader()[0]] == [["a", "b", "c"]]
    assert [len(batch["labels"]) for batch in held.val_dataloader()[0]] == [4, 1]


def test_examples_beyond_the_limit_are_counted():
    splits = classification(labelled_test=True)
    assert data(splits).unscored == {}
    assert data(splits, limit_test_samples=4).unscored == {"test": 2}
    assert data(splits, limit_test_samples=9).unscored == {"test": 0}
    unlabelled = classification()
    assert data(unlabelled, limit_test_samples=1).unscored == {"test": 2}  # predictions
    del unlabelled["train"]  # as in the action `test`
    expected = {"validation": 4, "validation_mismatched": 3, "test": 2}
    assert data(unlabelled, limit_test_samples=1).unscored == expected


def test_trainer_predicts_and_tests():
    learner = Recorder()
    assert trainer().predict(learner, datamodule=data()) == [[0, 1, 2]]
    trainer().test(learner, datamodule=data(), verbose=False)
    assert [names for _, names in learner.held] == [["a", "b", "c", "d"], ["e"], ["a", "b", "c", "d"]]


def test_generative_tasks_are_tested_on_left_padded_prompts():
    tokenizer = byte_tokenizer()
    pairs = [Example((text,), response="yes") for text in ("a", "bbb")]
    splits = {
        "train": encode_pairs(pairs, tokenizer, 64),
        "validation": encode_pairs(pairs, tokenizer, 64),
        "test": encode_prompts(pairs, tokenizer, 64),
    }
    held = data(splits)
    batch = next(iter(held.test_dataloader()[0]))
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["index"].tolist() == [0, 1]
    assert next(iter(held.train_dataloader()))["labels"].shape[0] == 2


def test_too_few_examples_for_the_ranks_are_refused(monkeypatch):
    held = data()
    monkeypatch.setattr(TaskData, "_place", lambda self: (0, 4))
    with pytest.raises(InputFault, match="11 examples do not fill a batch of 16 over all processes"):
        held.train_dataloader()


def test_ranks_share_every_evaluation_example_once(monkeypatch):
    seen = []
    for rank in range(2):
        monkeypatch.setattr(TaskData, "_place", lambda self, rank=rank: (rank, 2))
        seen += [name for batch in data().val_dataloader()[0] for name in texts(batch)]
    assert sorted(seen) == letters(5)


def _typed(types, count=20):
    examples = [
        Example((text,), label=0, task_type=types[i % len(types)]) for i, text in enumerate(letters(count))
    ]
    task = MRPC.build(MRPC.options())
    return {"validation": encode(task, "validation", examples, TOKENIZER, 64)}


def test_a_set_with_types_tells_those_of_the_batches_it_gives():
    splits = _typed(["b", "", "a"])
    one = data(splits)
    assert one.task_types("validation") == ["", "a", "b"]
    loader, types = one.evaluation_sample("validation", 2, 1)
    assert types == [["b", "", "a", "b"], ["a", "b", "", "a"]]  # rows 0 to 3 and 8 to 11 of five batches
    assert [texts(batch) for batch in loader] == [letters(4), letters(20)[8:12]]
    assert len(one.evaluation_sample("validation", 2, 13)[1]) == 4  # of four examples each
    assert set(splits["validation"][0]) == {"input_ids", "labels"}


def test_a_set_without_types_gives_its_first_batches():
    one = data(_typed([""]))
    loader, types = one.evaluation_sample("validation", 2, 99)
    assert types == [] == one.task_types("validation")
    assert [texts(batch) for batch in loader] == [letters(4), letters(8)[4:]]
