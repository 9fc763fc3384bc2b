"""`metrics.csv` is cut back to what a checkpoint knows; a file that lacks some of it is refused."""

from types import SimpleNamespace

import pytest

from configs.runtime.faults import InputFault
from model.training.callbacks.metrics_record import HEADER, MetricsRecord, read_metrics

FIRST = SimpleNamespace(is_global_zero=True)
OTHER = SimpleNamespace(is_global_zero=False)
ROWS = {"val/accuracy": 0.5, "val/loss": 1.25}


def _resumed(path, offset):
    record = MetricsRecord(path, 1)
    record.load_state_dict({"offset": offset})
    return record


def test_every_process_counts_the_bytes_that_the_first_one_writes(tmp_path):
    record, other = MetricsRecord(tmp_path / "metrics.csv", 1), MetricsRecord(tmp_path / "other.csv", 1)
    for one, trainer in ((record, FIRST), (other, OTHER)):
        one.on_train_start(trainer, None)
        one.write(trainer, 3, 1, ROWS)
    assert record.state_dict() == other.state_dict() == {"offset": record.path.stat().st_size}
    assert not other.path.exists()
    assert read_metrics(record.path) == [(3, 1, name, value) for name, value in ROWS.items()]


@pytest.mark.parametrize("more", ["", "4,1,train/loss,0.25\n"])
def test_rows_behind_the_checkpoint_are_cut_off(tmp_path, more):
    path = tmp_path / "metrics.csv"
    kept = HEADER + "1,0,train/loss,0.5\n"
    path.write_text(kept + more)

    _resumed(path, len(kept)).on_train_start(FIRST, None)
    assert path.read_text() == kept


@pytest.mark.parametrize("content", [None, "", HEADER])
def test_a_file_that_lacks_rows_of_the_checkpoint_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputFault, match="metrics.csv: ") as refused:
        _resumed(path, len(HEADER) + 20).on_train_start(FIRST, None)
    size = "is missing" if content is None else f"has {len(content)} bytes"
    assert size in str(refused.value)
    assert f"the checkpoint was written after {len(HEADER) + 20}" in str(refused.value)
    assert (path.read_text() if path.exists() else None) == content
