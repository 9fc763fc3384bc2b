"""The tool reads files and data sets, writes report and curve, and refuses wrong words early."""

import json
import random
import tomllib

import pyarrow.parquet
import pytest

from configs.toml.writer import toml_text
from tests.dataset.clustering.test_cluster import planted
from tests.support.tiny import write_gsm8k
from tests.tools.words import refused
from tools.cluster_corpus import main


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in planted(45, 3)))
    return path


def test_a_file_gives_a_report_and_a_curve(corpus, tmp_path, capsys):
    assert main([str(corpus), "--kmax", "6"]) == 0
    report = tomllib.loads((tmp_path / "clusters.toml").read_text())
    assert (report["chosen"], [one["size"] for one in report["clusters"]]) == (3, [15, 15, 15])
    assert [point["k"] for point in report["curve"]] == [1, 2, 3, 4, 5, 6]
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "45 of 45 texts, 18 terms, kmeans: N = 3" in printed
    assert any(line.split()[0] == "3" and line.endswith("elbow") for line in printed.splitlines())
    assert f"written: {tmp_path / 'clusters.png'}" in printed


def test_json_is_the_report(corpus, tmp_path, capsys):
    assert (
        main([str(corpus), "--json", "--method", "dbscan", "--min-samples", "4", "--output", "a.toml"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == tomllib.loads((tmp_path / "a.toml").read_text())
    assert not (tmp_path / "a.png").exists()


def test_a_data_set_gives_what_training_learns_from(corpus, tmp_path, capsys):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    assert main(["--dataset", "gsm8k", "--dataset-dir", "gsm8k", "--kmax", "3"]) == 0
    assert tomllib.loads((tmp_path / "clusters.toml").read_text())["texts"] == 38  # two are held out


def test_a_mixture_is_given_by_its_toml(corpus, tmp_path, capsys):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    own = {
        "dataset": "local",
        "name": "own",
        "train": str(corpus),
        "template": "{prompt} ",
        "response": "prompt",
    }
    sets = [{"dataset": "gsm8k", "dataset_dir": str(tmp_path / "gsm8k")}, own]
    (tmp_path / "run.toml").write_text(toml_text({"dataset": "mix", "seed": 5, "data": {"mix": sets}}))
    assert main(["--config", "run.toml"]) == 0
    report = tomllib.loads((tmp_path / "clusters.toml").read_text())
    assert report["seed"] == 5
    assert sum(one["parts"].get("gsm8k", 0) for one in report["clusters"]) == 38
    assert sum(one["parts"].get("own", 0) for one in report["clusters"]) == 43


def _held_out(total, count):
    order = list(range(total))
    random.Random(42).shuffle(order)
    return set(order[-count:])


def _lines(folder):
    return {path.name: path.read_text().split("\n")[:-1] for path in sorted(folder.iterdir())}


def test_every_cluster_gets_its_rows_as_they_were_read(corpus, tmp_path, capsys):
    rows = [{"id": n, "prompt": text, "more": [n, None]} for n, text in enumerate(planted(30, 3))]
    rows.insert(4, {"id": 99, "prompt": "7 8 é\u2028", "more": "no term"})
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(corpus), "--fields", "prompt", "--kmax", "6"]
    assert main([*words, "--output", "a.toml", "--write-parts", "one"]) == 0
    found = _lines(tmp_path / "one")
    assert list(found) == ["cluster_0.jsonl", "cluster_1.jsonl", "cluster_2.jsonl", "unclustered.jsonl"]
    read = {name: [json.loads(line) for line in lines] for name, lines in found.items()}
    assert read["unclustered.jsonl"] == [rows[4]]
    assert "é\u2028" in (tmp_path / "one" / "unclustered.jsonl").read_text()
    planted_rows = [row for row in rows if row["id"] != 99]
    groups = [planted_rows[at::3] for at in range(3)]
    assert all(read[f"cluster_{n}.jsonl"] in groups for n in range(3))
    printed = capsys.readouterr().out
    assert f"written: {tmp_path / 'one' / 'cluster_0.jsonl'} (10 rows)" in printed
    assert [line.split()[0] for line in printed.splitlines() if " 10 " in line][:3] == ["0", "1", "2"]
    assert main([*words, "--output", "b.toml", "--write-parts", "two"]) == 0
    for name in found:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_rows_that_were_not_drawn_go_to_the_nearest_cluster(corpus, tmp_path):
    words = [str(corpus), "--kmax", "6", "--max-texts", "24", "--write-parts", "parts"]
    assert main(words) == 0
    report = tomllib.loads((tmp_path / "clusters.toml").read_text())
    assert (report["texts"], report["clustered"], report["chosen"]) == (45, 24, 3)
    texts = planted(45, 3)
    found = {
        frozenset(json.loads(line)["prompt"] for line in lines)
        for lines in _lines(tmp_path / "parts").values()
    }
    assert found == {frozenset(texts[at::3]) for at in range(3)}


def test_running_text_stays_running_text(corpus, tmp_path):
    texts = planted(30, 2)
    (tmp_path / "a.txt").write_text("\n\n".join(texts[:20]) + "\n")
    (tmp_path / "b.csv").write_text("prompt,n\n" + "".join(f"{text},1\n" for text in texts[20:]))
    assert main(["a.txt", "b.csv", "--fields", "prompt", "--kmax", "5", "--write-parts", "parts"]) == 0
    found = _lines(tmp_path / "parts")
    assert set(found) == {f"cluster_{n}.{ending}" for n in (0, 1) for ending in ("txt", "jsonl")}
    assert [found[f"cluster_{n}.txt"] for n in (0, 1)] in (
        [texts[:20:2], texts[1:20:2]],
        [texts[1:20:2], texts[:20:2]],
    )
    assert json.loads(found["cluster_0.jsonl"][0])["n"] == "1"


def test_a_data_set_gives_its_training_rows_without_what_is_held_out(corpus, tmp_path):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    words = ["--dataset", "gsm8k", "--dataset-dir", "gsm8k", "--kmax", "3", "--write-parts", "parts"]
    path = tmp_path / "gsm8k" / "train.jsonl"
    stored = [
        json.dumps({"id": n, **json.loads(line)}) for n, line in enumerate(path.read_text().splitlines())
    ]
    path.write_text("\n".join(stored) + "\n")
    assert main(words) == 0
    held_out = _held_out(40, 2)
    written = _lines(tmp_path / "parts")["cluster_0.jsonl"]
    assert written == [line for n, line in enumerate(stored) if n not in held_out]


def test_the_parts_of_a_mixture_are_kept_separate(corpus, tmp_path):
    write_gsm8k(tmp_path / "gsm8k", train=40)
    own = {
        "dataset": "local",
        "name": "own",
        "train": str(corpus),
        "template": "{prompt} ",
        "response": "prompt",
    }
    sets = [{"dataset": "gsm8k", "dataset_dir": str(tmp_path / "gsm8k")}, own]
    (tmp_path / "run.toml").write_text(toml_text({"dataset": "mix", "seed": 5, "data": {"mix": sets}}))
    assert main(["--config", "run.toml", "--write-parts", "parts"]) == 0
    found = _lines(tmp_path / "parts")
    for name, lines in found.items():
        keys = {"question", "answer"} if name.endswith("_gsm8k.jsonl") else {"prompt"}
        assert all(set(json.loads(line)) == keys for line in lines), name
    assert sum(map(len, found.values())) == 38 + 43


def test_rows_without_a_form_in_json_are_refused_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": planted(8, 2), "raw": [b"x"] * 8}), tmp_path / "a.parquet"
    )
    assert main(["a.parquet", "--fields", "prompt", "--write-parts", "parts"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --write-parts: a.parquet: text 1 cannot be written as JSON: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_parts_are_not_written_over_anything(corpus, tmp_path):
    words = (corpus, "--output", tmp_path / "out.toml", "--write-parts")
    assert refused("tools.cluster_corpus", *words, tmp_path) == [
        f"error: --write-parts: '{tmp_path}' already exists and is not overwritten"
    ]
    assert refused("tools.cluster_corpus", *words, tmp_path / "out.png") == [
        f"error: --write-parts: '{tmp_path / 'out.png'}' is already the path of --output"
    ]


def test_invalid_flags_are_refused_before_anything_is_loaded(corpus, tmp_path):
    taken, free = tmp_path / "taken.toml", tmp_path / "free.toml"
    taken.write_text("mine")
    words = (corpus, "--dataset", "gsm8k", "--eps", 0.5, "--output", taken)
    assert refused("tools.cluster_corpus", *words) == [
        "error: --dataset: cannot be combined with FILES",
        "error: --eps: not for --method kmeans",
        f"error: --output: '{taken}' already exists and is not overwritten",
    ]
    assert refused("tools.cluster_corpus", "--output", free) == [
        "error: FILES: required, unless --dataset is given"
    ]
    assert refused("tools.cluster_corpus", "--dataset", "gsm8", "--output", free)[0].endswith(
        "did you mean 'gsm8k'?"
    )
    (tmp_path / "run.toml").write_text("seed = 1\n")
    assert refused("tools.cluster_corpus", "--config", tmp_path / "run.toml", "--output", free) == [
        f"error: --dataset: required, '{tmp_path / 'run.toml'}' does not name one"
    ]
