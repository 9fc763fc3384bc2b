"""The training before an alpha test is a share of the run's epoch, however many devices share it."""

from types import SimpleNamespace

import pytest

from configs.schema.batch_limit import BatchLimit
from dataset.batches.data_module import TaskData
from model.run.actions import imp_test


class Rows(list):
    """A training set of so many rows without content."""

    lengths = None

    def draw(self, seed):
        return None


@pytest.fixture
def limited(monkeypatch):
    """Return the batches of each device and epoch that the training before the test is limited to."""
    asked = {}
    monkeypatch.setattr(imp_test, "fit", lambda job, directory, learner, limits: asked.update(limits))

    def get(limit, devices=1, nodes=1, rows=80):
        data = TaskData({"train": Rows(range(rows))}, batch_size=2, seed=0, pad_id=0)
        options = SimpleNamespace(alpha_limit_zptrain_batches=limit, num_devices=devices, nodes=nodes)
        imp_test._train(SimpleNamespace(data=data, options=options), None, None)
        return asked["limit_train_batches"]

    return get


@pytest.mark.parametrize(("devices", "nodes", "expected"), [(1, 1, 10), (2, 1, 5), (2, 2, 3), (4, 1, 3)])
def test_a_ratio_is_a_share_of_what_each_device_trains(limited, devices, nodes, expected):
    assert limited(BatchLimit(ratio=0.25), devices, nodes) == expected  # of 40 batches


def test_a_ratio_counts_full_rounds_of_all_devices(limited):
    assert limited(BatchLimit(ratio=0.5), rows=9) == 3  # of 5 batches
    assert limited(BatchLimit(ratio=0.5), devices=2, rows=9) == 1  # of 2 for each device


def test_a_count_is_that_of_each_device(limited):
    assert limited(BatchLimit(count=7), devices=2) == 7
    assert limited(BatchLimit(count=70), devices=2) == 20
