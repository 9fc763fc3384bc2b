"""`--mmlu-mode`: training stays on its set, evaluation uses MMLU's questions, zero-shot and five-shot."""

import csv
import io

import pytest

from tests.support.runs import comparable, launch, program, rows, run, summary
from tests.support.tiny import byte_tokenizer, save_host, write_gsm8k

SUBJECTS = {"abstract_algebra": "stem", "astronomy": "stem", "us_foreign_policy": "social_sciences"}
COUNTS = {"dev": 5, "val": 3, "test": 4}


def write_mmlu(directory, subjects=SUBJECTS, **counts):
    """Write the official layout: files without a header."""
    for folder, count in {**COUNTS, **counts}.items():
        place = directory / "data" / folder
        place.mkdir(parents=True)
        for number, subject in enumerate(subjects):
            text = io.StringIO()
            lines = [
                (
                    f'What is {row}, "so" {number}?',
                    "one, two",
                    "two",
                    "three",
                    "4",
                    "ABCD"[(row + number) % 4],
                )
                for row in range(count)
            ]
            csv.writer(text, lineterminator="\n").writerows(lines)
            (place / f"{subject}_{folder}.csv").write_text(text.getvalue())
    return directory


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    base = tmp_path_factory.mktemp("mmlu")
    write_mmlu(base / "files")
    return base


@pytest.fixture(scope="module")
def host(place):
    """A network with positions enough for five solved questions."""
    path = save_host("llama", place / "host", max_position_embeddings=1024)
    byte_tokenizer(limit=1024).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def words(ground, place, host):
    def make(mode, **options):
        asked = {"load": host, "mmlu_mode": mode, "mmlu_dir": place / "files"}
        line = ground.words("llama", **{"dataset_dir": ground.gsm8k(), **asked, **options})
        line[2] = "gsm8k"
        return line

    return make


@pytest.fixture(scope="module")
def trained(place, words):
    return run(place / "zs", *words("zs", max_epochs=1))


def test_training_is_that_of_the_set_and_evaluation_is_mmlus(trained, place, ground, host):
    plain = ground.words("llama", load=host, dataset_dir=ground.gsm8k(), max_epochs=1)
    plain[2] = "gsm8k"
    assert rows(run(place / "plain", *plain)) == rows(trained)
    found = summary(trained)
    groups = {"mmlu", "mmlu_stem", "mmlu_social_sciences"}
    expected = {f"val/{name}" for name in groups}
    expected |= {f"test/{name}{suffix}" for name in groups for suffix in ("", "_fs")}
    assert set(found["metrics"]) == expected
    assert (found["metric"]["name"], found["metric"]["direction"]) == ("val/mmlu", "max")
    assert found["metric"]["value"] == found["metrics"]["val/mmlu"]
    splits = found["rows"]["splits"]
    assert not any(one.get("cut") for one in splits.values())
    assert 0 < found["metrics"]["test/mmlu"] < 1
    assert {name: one["used"] for name, one in splits.items()} == {
        "train": 38, "validation": 9, "test": 12, "test_fs": 12,
    }  # fmt: skip


def test_the_checkpoint_and_the_adapter_give_the_same_numbers(trained, place, host):
    best = trained / "checkpoints" / "best.ckpt"
    expected = {name: value for name, value in summary(trained)["metrics"].items() if "test" in name}
    tested = run(place / "checkpoint", "test", "--load", best, "--load-type", "pl")
    assert summary(tested)["metrics"] == expected
    line = ("--adapter", trained / "adapter", "--load", host, "--mmlu-dir", place / "files")
    five = run(place / "five", "test", "llama_lora", "gsm8k", *line, "--mmlu-mode", "fs")
    turned = {name.removesuffix("_zs") + "_fs" * (not name.endswith("_zs")): value
              for name, value in summary(five)["metrics"].items()}  # fmt: skip
    assert turned == expected


def test_a_prompt_that_is_cut_counts_as_wrong(place, words):
    directory = run(place / "cut", *words("fs", max_epochs=1, max_token_len=96))
    metrics = summary(directory)["metrics"]
    assert metrics["val/mmlu"] == metrics["test/mmlu"] == 0.0
    assert summary(directory)["rows"]["splits"]["test"]["cut"] == 12


@pytest.mark.slow
def test_two_processes_evaluate_every_question_once(place, words):
    files = write_mmlu(place / "odd-counts", val=1, test=7)  # 21 questions, batches of 2 in each process
    alone = run(place / "alone", *words("zs", mmlu_dir=files, max_steps=1, batch_size=2))
    line = ["test", "--load", alone / "checkpoints" / "best.ckpt", "--load-type", "pl"]
    line += ["--num-devices", 2, "--accelerator", "cpu", "--project-dir", place, "--project", "pair"]
    done = program(*line)
    assert done.returncode == 0, done.stderr
    found, expected = summary(place / "pair"), summary(alone)
    for name in ("test", "test_fs"):
        assert found["rows"]["splits"][name] == expected["rows"]["splits"][name]
    tested = {name: value for name, value in expected["metrics"].items() if name.startswith("test/")}
    assert len(tested) == 6
    assert 0 < tested["test/mmlu"] < 1
    assert found["metrics"] == tested


def test_a_mixture_is_trained_and_evaluated(place, words, ground):
    line = words("zs", dataset_dir=None, max_steps=2)
    line = ["train", "llama_lora", "--config", ground.mixture(), *line[3:]]
    directory = run(place / "mixture", *line)
    found = summary(directory)
    assert set(found["rows"]["parts"]) == {"gsm8k", "own"}
    assert {"val/mmlu", "test/mmlu", "test/mmlu_fs"} < set(found["metrics"])
    best = directory / "checkpoints" / "best.ckpt"
    tested = summary(run(place / "mixture-test", "test", "--load", best, "--load-type", "pl"))
    assert tested["metrics"]["test/mmlu"] == found["metrics"]["test/mmlu"]


def test_routers_are_recorded_on_questions(place, words, ground):
    plan = ground.plan("mmlu-hydra", method="hydra", heads=2)
    directory = run(place / "hydra", *words("zs", lora_config=plan, max_steps=1))
    assert (directory / "search" / "router_usage.toml").exists()


def test_an_equal_run_is_equal_and_gets_an_automatic_name(trained, place, words):
    assert launch(*words("zs", max_epochs=1), "--project-dir", place / "auto") == 0
    (again,) = (place / "auto").iterdir()
    assert again.name == "llama_lora_causal_language_modeling_gsm8k-mmlu"
    assert comparable(again) == comparable(trained)


def _refusal(capsys, *line):
    assert launch(*line) == 2
    return capsys.readouterr().err.strip().removeprefix("error: ")


def test_what_cannot_be_evaluated_is_refused(place, words, ground, capsys):
    line = words("zs")
    at = line.index("--mmlu-dir") + 1
    few = write_mmlu(place / "few", dev=4)
    assert _refusal(capsys, *line[:at], str(few), *line[at + 1 :]).splitlines()[0] == (
        "--mmlu-dir: dev has 4 questions of abstract_algebra, but 5 are needed"
    )
    odd = write_mmlu(place / "odd", {"astrology": "x"})
    assert _refusal(capsys, *line[:at], str(odd), *line[at + 1 :]).splitlines()[0] == (
        f"--mmlu-dir: {odd / 'data/dev/astrology_dev.csv'}: not a subject of MMLU; did you mean 'astronomy'?"
    )
    bad = write_mmlu(place / "bad")
    path = bad / "data" / "val" / "astronomy_val.csv"
    path.write_text(path.read_text() + "Why?,a,b,c,d,E\n")
    broken = [*line[:at], str(bad), *line[at + 1 :]]
    assert (
        _refusal(capsys, *broken)
        == f"{path}:4: label 'E' is not allowed, allowed are A, B, C, D (1 of 4 rows)"
    )
    assert launch(*broken, "--max-bad-rows", "1", "--dry-run") == 0
    gsm8k = write_gsm8k(place / "gsm8k")
    (gsm8k / "train.jsonl").write_text((gsm8k / "train.jsonl").read_text() + "{}\n")
    both = [*broken[: (at := broken.index("--dataset-dir") + 1)], str(gsm8k), *broken[at + 1 :]]
    assert launch(*both, "--max-bad-rows", "2", "--dry-run") == 0
    capsys.readouterr()
    assert _refusal(capsys, *both, "--max-bad-rows", "1").startswith(f"{path}:4: label 'E' is not allowed")
    capsys.readouterr()
    assert "only with --mmlu-mode" in _refusal(capsys, *ground.words("llama", mmlu_dir=bad))
    assert "no directory" in _refusal(capsys, *line[:at], str(place / "none"), *line[at + 1 :])
    both = ground.words("llama", mmlu_mode="zs", mmlu_dir=place / "files")
    assert (
        _refusal(capsys, *both)
        == "--mmlu-mode: needs a data set for language modelling, rte is for classification"
    )
