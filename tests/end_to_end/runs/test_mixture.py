"""A run on a mixture: shares, losses by part and in total, rows by part, the record fed back."""

import json
import math
import random

import pytest

from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import comparable, files, flags, launch, program, rows, run, summary
from tests.support.tiny import rte_rows, write_rte

PARTS = ("gsm8k", "own")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("mixture")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of seven batches."""
    options = {
        "load": ground.host("llama"),
        "config": ground.mixture(),
        "lora_config": ground.plan(),
        "batch_size": 8,
        "max_epochs": 2,
        "learning_rate": 0.02,
    }
    return ["train", "llama_lora", *flags(options)]


@pytest.fixture(scope="module")
def trained(place, words):
    return run(place / "trained", *words)


def test_every_part_is_evaluated_and_all_together_choose_the_step(trained, ground):
    result = summary(trained)
    assert result["metric"]["name"] == "val/loss"
    assert result["metric"]["direction"] == "min"
    names = {f"val/{one}{part}" for one in ("loss", "perplexity") for part in ("", "_gsm8k", "_own")}
    assert set(result["metrics"]) == names
    losses = {part: rows(trained, f"val/loss_{part}") for part in PARTS}
    assert all(list(loss) == [7, 14] and loss[14] < loss[7] for loss in losses.values())
    # Targets are bytes and the end token.
    sizes = {"own": 4 * (len("No.") + 1), "gsm8k": sum(len(f" {one}") + 1 for one in _held_out(ground))}
    for step, total in rows(trained, "val/loss").items():
        pooled = sum(losses[part][step] * sizes[part] for part in PARTS) / sum(sizes.values())
        assert total == pytest.approx(pooled, rel=1e-6)
        assert rows(trained, "val/perplexity")[step] == pytest.approx(math.exp(total))


def _held_out(ground):
    """Return the answers of the two rows of GSM8K that are held out."""
    lines = (ground.gsm8k() / "train.jsonl").read_text().splitlines()
    order = list(range(len(lines)))
    random.Random(42).shuffle(order)
    return [json.loads(lines[index])["answer"] for index in order[-2:]]


def test_rows_are_accounted_for_by_part(trained):
    account = summary(trained)["rows"]
    assert account["parts"] == {
        "gsm8k": {"read": 40, "used": 40, "refused": 0, "drawn_per_epoch": 25},
        "own": {"read": 16, "used": 16, "refused": 0, "drawn_per_epoch": 25},
    }
    assert {name: split["used"] for name, split in account["splits"].items()} == {
        "train_gsm8k": 38,
        "validation_gsm8k": 2,
        "train_own": 12,
        "validation_own": 4,
    }
    assert account["read"] == account["used"] == 56


def test_the_record_names_every_part(trained):
    metadata = json.loads((trained / "adapter" / "metadata.json").read_text())
    assert metadata["template"] is None
    assert metadata["templates"] == {"gsm8k": "Question: {question}\nAnswer:", "own": "Q: {q}\nA: "}
    digests = load_checkpoint(trained / "checkpoints" / "best.ckpt")["facts"]["data_digests"]
    assert set(digests) == {"train_gsm8k", "validation_gsm8k", "train_own", "validation_own"}


def test_the_configuration_fed_back_gives_the_same_run(trained, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = run(place / "again", "train", "--config", trained / "config.toml")
    assert comparable(again) == comparable(trained)


def test_test_scores_each_part_on_its_own_set(trained, place):
    tested = summary(
        run(place / "tested", "test", "--load", trained / "checkpoints/best.ckpt", "--load-type", "pl")
    )
    assert set(tested["rows"]["splits"]) == {"test_gsm8k", "validation_own"}
    assert tested["metric"]["split"] == "test_gsm8k, validation_own"
    assert tested["metrics"]["test/loss_own"] == pytest.approx(summary(trained)["metrics"]["val/loss_own"])
    assert tested["metric"]["value"] == tested["metrics"]["test/loss"]
    assert "drawn_per_epoch" not in tested["rows"]["parts"]["own"]


def test_a_dry_run_shows_the_shares_and_writes_nothing(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launch(*words, "--dry-run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "train_gsm8k 38, validation_gsm8k 2, train_own 12, validation_own 4" in shown
    assert "examples of an epoch gsm8k 25 (50.0 %), own 25 (50.0 %)" in shown
    assert "gsm8k: <s>Question: " in shown and "own: <s>Q: " in shown
    assert files(tmp_path) == set()


def test_a_changed_part_is_refused_in_a_resumed_run(trained, ground, tmp_path, capsys):
    text = ground.mixture().read_text()
    (tmp_path / "other.toml").write_text(text.replace("weight = 0.5", "weight = 0.75", 1))
    resumed = ["--resume-training", "--load", trained / "checkpoints/last.ckpt", "--load-type", "pl"]
    assert launch("train", *resumed, "--config", tmp_path / "other.toml") == 2
    assert "[data]: data.mix: the run began with " in capsys.readouterr().err


def test_classification_parts_share_their_head(ground, place, tmp_path):
    pairs = "".join(f"{first}\t{second}\t{label}\n" for first, second, label in rte_rows(12, seed=5))
    (tmp_path / "own.tsv").write_text(f"first\tsecond\tkind\n{pairs}")
    (tmp_path / "mix.toml").write_text(
        f'[[data.mix]]\ndataset = "rte"\ndataset_dir = "{write_rte(tmp_path / "RTE")}"\n'
        f'[[data.mix]]\ndataset = "local"\nname = "own"\ntrain = "{tmp_path / "own.tsv"}"\n'
        'text = "first"\ntext_pair = "second"\nlabel = "kind"\n'
    )
    words = ground.words(config=tmp_path / "mix.toml", dataset_dir=None, write_predictions=True)
    words[2] = "mix"
    result = summary(run(place / "classes", *words))
    assert {"val/accuracy", "val/accuracy_rte", "val/f1_own", "val/loss"} <= set(result["metrics"])
    assert result["rows"]["parts"]["rte"]["drawn_per_epoch"] == 32
    predictions = (place / "classes" / "predictions_test_rte.tsv").read_text().splitlines()
    assert len(predictions) == 5


@pytest.mark.slow
def test_two_processes_compute_what_one_does(trained, place, words):
    """Each takes its half of every global batch; two of the fifty examples do not fill both."""
    words = [word if word != "8" else "4" for word in words]
    named = ["--project-dir", place, "--project", "two", "--num-devices", 2, "--accelerator", "cpu"]
    done = program(*words, *named)
    assert done.returncode == 0, done.stderr
    assert "note: 2 examples of each epoch are left out" in done.stdout
    found, expected = rows(place / "two"), rows(trained)
    assert [found[step] for step in range(1, 7)] == pytest.approx([expected[s] for s in range(1, 7)], rel=0.1)
    assert summary(place / "two")["rows"] == summary(trained)["rows"]
