"""What the hub cannot give becomes one line that names the way out."""

import pytest

from configs.runtime.faults import InputFault, SystemFault
from dataset.rows import hub
from dataset.tasks.arithmetic import TASK as ARITHMETIC
from dataset.tasks.rte import TASK as RTE


class Table:
    def to_list(self):
        return [{"sentence1": "a"}]


@pytest.fixture(autouse=True)
def answering(monkeypatch):
    monkeypatch.setattr(hub.hub, "silence", lambda: None)


def test_rows_come_from_the_named_copy(monkeypatch, tmp_path):
    asked = []

    def load_dataset(*arguments, **facts):
        asked.append((arguments, facts))
        return Table()

    monkeypatch.setattr(hub.datasets, "load_dataset", load_dataset)
    assert hub.load(RTE.build(RTE.options()), "train", cache=tmp_path) == [{"sentence1": "a"}]
    assert asked == [(("nyu-mll/glue", "rte"), {"split": "train", "cache_dir": str(tmp_path)})]


def test_offline_never_accesses_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(SystemFault) as caught:
        hub.load(RTE.build(RTE.options()), "train", offline=True, cache=tmp_path)
    assert "nyu-mll/glue (train) is not in the cache" in str(caught.value)
    assert "--dataset-dir" in str(caught.value)
    assert len(caught.value.lines) == 1


def test_a_silent_hub_leaves_the_cache(monkeypatch, caplog):
    monkeypatch.setattr(hub.datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.hub, "silence", lambda: "no route")
    hub.hub.note_cached.cache_clear()

    def cached(*arguments, **facts):
        assert hub.datasets.config.HF_HUB_OFFLINE
        return Table()

    monkeypatch.setattr(hub.datasets, "load_dataset", cached)
    assert hub.load(RTE.build(RTE.options()), "train") == [{"sentence1": "a"}]
    assert "its cache is used" in caplog.text

    def absent(*arguments, **facts):
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(hub.datasets, "load_dataset", absent)
    with pytest.raises(
        SystemFault, match="is not in the cache: the hub is not reached \\(no route\\); --data"
    ):
        hub.load(RTE.build(RTE.options()), "train")


def test_other_failures_are_one_line(monkeypatch):
    def fail(*arguments, **facts):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(hub.datasets, "load_dataset", fail)
    with pytest.raises(SystemFault, match="could not be fetched: RuntimeError: first; --dataset-dir"):
        hub.load(RTE.build(RTE.options()), "train")


def test_generated_data_sets_have_no_hub_copy():
    with pytest.raises(InputFault, match="no copy on the hub"):
        hub.load(ARITHMETIC.build(ARITHMETIC.options()), "train")
