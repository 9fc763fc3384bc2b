"""From the command line to the run directory and back, on tiny hosts."""

import csv
import json
import math
import tomllib

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dataset.suites.rouge import score_rouge
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import ENTRY, comparable, files, flags, launch, pair_rows, rows, run, summary
from tests.support.tiny import rte_rows, save_host

RECORD = {"config.toml", "run.toml", "lora.toml", "metrics.csv", "summary.json", "report.md", "curves.png"}
ADAPTER = {
    f"adapter/{name}"
    for name in ("adapter_config.json", "adapter_model.safetensors", "metadata.json", "README.md")
}
CHECKPOINTS = {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
LABELS = ("entailment", "not_entailment")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("main")


@pytest.fixture(scope="module")
def trained(ground, place):
    """A run of opt_lora on RTE with dropout, warm-up and accumulation."""
    ground.plan("dropout", lora_dropout=0.1)
    return run(place / "trained", *_dropout(ground))


@pytest.fixture(scope="module")
def simple(ground, place):
    """A run of opt_lora on RTE without dropout: what single options are compared with."""
    return run(place / "simple", *ground.words())


def _dropout(ground, **options):
    plan = ground.base / "dropout.toml"
    return ground.words(lora_config=plan, lr_scheduler="cosine_annealing", warmup_ratio=0.25, **options)


def _tested(trained, place, *words):
    """Return the summary of `test`."""
    name = f"test-{len(list(place.iterdir()))}"
    return summary(run(place / name, "test", *words))


# --- the record -------------------------------------------------------------------------------------------


def test_a_run_leaves_exactly_its_files(trained):
    found = files(trained)
    events = {name for name in found if name.startswith("tensorboard/")}
    assert found - events == RECORD | ADAPTER | CHECKPOINTS
    assert any("events.out" in name for name in events)


def test_the_summary_has_the_keys_that_are_promised(trained):
    found = summary(trained)
    assert set(found) == {"metric", "metrics", "trainable_parameters", "steps", "search", "rows"}
    assert set(found["metric"]) == {"name", "direction", "split", "value", "best_step"}
    groups = found["trainable_parameters"]
    assert set(groups) == {"adapters", "router_or_gates", "head", "other", "total"}
    assert groups["total"] == sum(count for name, count in groups.items() if name != "total")
    assert found["search"] == {"decisions": 0, "enabled": 18, "eligible": 18}
    assert found["steps"] == 8
    assert found["rows"]["read"] == found["rows"]["used"] + found["rows"]["refused"] == 40


def test_the_metrics_have_a_row_a_step_and_the_value_of_the_best(trained):
    with (trained / "metrics.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert list(table[0]) == ["step", "epoch", "name", "value"]
    assert list(rows(trained)) == [1, 2, 3, 4, 5, 6, 7, 8]
    evaluations = rows(trained, "val/accuracy")
    assert list(evaluations) == [4, 8]
    metric = summary(trained)["metric"]
    assert metric["value"] == evaluations[metric["best_step"]] == max(evaluations.values())
    assert metric["best_step"] == min(step for step, value in evaluations.items() if value == metric["value"])
    assert {row["name"].split("/")[0] for row in table} == {"train", "val"}


def test_comparable_artefacts_hold_no_path_but_the_base(trained, ground):
    for name, content in comparable(trained).items():
        if name != "adapter/adapter_config.json":
            assert str(ground.base).encode() not in content
            assert str(trained.parent).encode() not in content
            assert f"/{trained.name}".encode() not in content
    config = json.loads((trained / "adapter" / "adapter_config.json").read_text())
    base = config.pop("base_model_name_or_path")
    assert base == str(ground.host("opt"))
    assert str(ground.base) not in json.dumps(config)


def test_equal_runs_are_equal_from_anywhere(trained, ground, place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    again = run(place / "another-name", *_dropout(ground))
    assert comparable(again) == comparable(trained)


def test_another_seed_gives_another_run(trained, ground, place):
    assert rows(run(place / "seed", *_dropout(ground, seed=1))) != rows(trained)


def test_a_written_config_gives_the_same_run(trained, place):
    again = run(place / "fed-back", "train", "--config", trained / "config.toml")
    assert comparable(again) == comparable(trained)
    taken = "train_again"
    assert launch("train", "--config", trained / "config.toml", "--dry-run", "--project", taken) == 0


def test_the_automatic_name_counts_up(ground, tmp_path):
    words = ground.words(max_steps=1, project_dir=tmp_path)
    assert launch(*words) == launch(*words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "opt_lora_classification_rte",
        "opt_lora_classification_rte_1",
    }


# --- a trained run gives its number again -----------------------------------------------------------------


def _agree(trained, place, host, *words):
    """Test the adapter and the best checkpoint; both give the run's own numbers, to the last digit."""
    expected = {name.split("/")[1]: value for name, value in summary(trained)["metrics"].items()}
    adapter = _tested(trained, place, "--load", host, "--adapter", trained / "adapter", *words)
    best = trained / "checkpoints" / "best.ckpt"
    checkpoint = _tested(trained, place, "--load", best, "--load-type", "pl")
    for found in (adapter, checkpoint):
        numbers = {name.split("/")[1]: value for name, value in found["metrics"].items()}
        assert numbers == {name: expected[name] for name in numbers}
        assert numbers
    assert adapter["metric"] == checkpoint["metric"]
    return adapter


def test_opt_gives_the_metric_of_the_run_again(trained, ground, place):
    words = ("--model", "opt_lora", "--dataset", "rte", "--dataset-dir", ground.rte())
    found = _agree(trained, place, ground.host("opt"), *words)
    assert found["metric"]["value"] == summary(trained)["metric"]["value"]
    assert "loss" in {name.split("/")[1] for name in found["metrics"]}


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_encoders_learn_pairs_and_give_the_metric_of_the_run_again(ground, place, family):
    done = run(place / family, *ground.words(family, max_epochs=6, learning_rate=0.005))
    evaluations = list(rows(done, "val/loss").values())
    assert min(evaluations) < evaluations[0]
    words = ("--model", f"{family}_lora", "--dataset", "rte", "--dataset-dir", ground.rte())
    _agree(done, place, ground.host(family), *words)


def test_auto_takes_the_family_from_the_network(ground, place, tmp_path, capsys):
    host, data = ground.host("deberta"), ground.rte()
    words = ("--model", "auto_lora", "--dataset", "rte", "--dataset-dir", data)
    options = {"load": host, "lora_config": ground.plan(), "batch_size": 8, "max_steps": 2}
    done = run(place / "auto", "train", *words, *flags(options))
    assert 'model = "auto_lora"' in (done / "config.toml").read_text()
    config = json.loads((done / "adapter" / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["classifier", "pooler"]
    _agree(done, place, host, *words)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert launch("train", *words, *flags(options | {"load": tmp_path})) == 2
    assert "no architecture 'gpt2', one of bert, deberta-v2, gemma, gemma2," in capsys.readouterr().err


def test_capped_logits_train_and_answer_and_the_record_says_how(ground, tmp_path):
    host = save_host("gemma", tmp_path / "gemma2", model_type="gemma2", final_logit_softcapping=5.0)
    (host / "generation_config.json").write_text('{"num_beams": 4}')
    options = {"load": host, "lora_config": ground.plan(), "dataset_dir": ground.gsm8k(), "max_steps": 2}
    done = run(tmp_path / "run", "train", "gemma_lora", "gsm8k", *flags(options))
    assert "test/exact_match" in summary(done)["metrics"]
    record = tomllib.loads((done / "run.toml").read_text())
    ids = {"end_token_id": 2, "pad_token_id": 1}
    assert record["decoding"] == {"strategy": "greedy", "max_new_tokens": 256, **ids}
    assert any("is not followed: num_beams 4; an answer ends" in note for note in record["notes"])


@pytest.fixture(scope="module")
def language(ground, place):
    """A run of llama_lora on rows like GSM8K, scored by generation."""
    ground.plan()
    options = {
        "load": ground.host("llama"),
        "lora_config": ground.base / "plain.toml",
        "dataset_dir": ground.gsm8k(),
        "batch_size": 8,
        "max_epochs": 4,
        "learning_rate": 0.02,
    }
    return run(place / "language", "train", "llama_lora", "gsm8k", *flags(options))


def test_llama_is_scored_by_its_answers_and_gives_them_again(language, ground, place):
    samples = [json.loads(line) for line in (language / "samples.jsonl").read_text().splitlines()]
    assert [sample["row"] for sample in samples] == [0, 1, 2, 3]
    assert set(samples[0]) == {"row", "prompt", "answer", "gold", "scores"}
    found = summary(language)
    assert found["metric"]["name"] == "val/loss"
    exact = found["metrics"]["test/exact_match"]
    assert exact == sum(sample["scores"]["exact_match"] for sample in samples) / len(samples)
    closing = rows(language, "test/exact_match")
    assert closing == {found["metric"]["best_step"]: exact}
    assert math.isclose(found["metrics"]["val/perplexity"], math.exp(found["metrics"]["val/loss"]))
    words = ("--model", "llama_lora", "--dataset", "gsm8k", "--dataset-dir", ground.gsm8k())
    _agree(language, place, ground.host("llama"), *words)
    assert rows(language, "train/loss")[20] < rows(language, "train/loss")[1]
    for other in place.glob("test-*/samples.jsonl"):
        assert other.read_bytes() == (language / "samples.jsonl").read_bytes()


def test_answers_stop_at_the_last_position_of_the_network(ground, tmp_path, capsys):
    words = ["train", "opt_lora", "gsm8k", "--load", ground.host("opt"), "--lora-config", ground.plan()]
    done = run(tmp_path / "opt", *words, "--dataset-dir", ground.gsm8k(), "--max-steps", 1)
    assert "test/exact_match" in summary(done)["metrics"]
    assert "note: answers are cut after " in capsys.readouterr().out


def test_arithmetic_needs_no_file(ground, place, tmp_path):
    config = tmp_path / "data.toml"
    config.write_text("[data]\ntrain_examples = 24\nvalidation_examples = 5\ntest_examples = 3\n")
    words = ["train", "llama_lora", "arithmetic", "--load", ground.host("llama"), "--config", config]
    options = {"lora_config": ground.plan(), "max_epochs": 3, "batch_size": 4, "learning_rate": 0.02}
    done = run(tmp_path / "arithmetic", *words, *flags(options))
    losses = list(rows(done).values())
    assert losses[-1] < losses[0]
    assert summary(done)["rows"]["splits"]["test"]["used"] == 3
    best = done / "checkpoints" / "best.ckpt"
    again = _tested(done, place, "--load", best, "--load-type", "pl", "--batch-size", "4")
    numbers = summary(done)["metrics"]
    assert again["metrics"] == {name: numbers[name] for name in numbers if name.startswith("test/")}


def test_stsb_is_a_regression(ground, place):
    data = [(i, a, b, 4.5 if label == "entailment" else 0.5) for i, (a, b, label) in enumerate(rte_rows(32))]
    columns = ("index", "sentence1", "sentence2", "score")
    folder = ground.table("STS-B", columns, {"train.tsv": data, "dev.tsv": data[:8]})
    words = ground.words("bert", dataset_dir=folder, max_epochs=4)
    done = run(place / "stsb", *[word if word != "rte" else "stsb" for word in words])
    found = summary(done)
    assert found["metric"]["name"] == "val/pearson"
    assert {"val/pearson", "val/spearman", "val/loss"} == set(found["metrics"])
    losses = list(rows(done).values())
    assert losses[-1] < losses[0]
    words = ("--model", "bert_lora", "--dataset", "stsb", "--dataset-dir", folder)
    _agree(done, place, ground.host("bert"), *words)


def test_mnli_has_two_validation_sets_and_predictions(ground, place):
    labels = ("entailment", "neutral", "contradiction")
    data = pair_rows(32, labels)
    columns = ("index", "sentence1", "sentence2", "gold_label")
    sets = {"train.tsv": data, "dev_matched.tsv": data[:8], "dev_mismatched.tsv": data[8:15]}
    folder = ground.table("MNLI", columns, sets)
    tests = {"test_matched.tsv": [row[:3] for row in data[:5]], "test_mismatched.tsv": [data[6][:3]]}
    ground.table("MNLI", columns[:3], tests)
    words = [word if word != "rte" else "mnli" for word in ground.words("roberta", dataset_dir=folder)]
    done = run(place / "mnli", *words, "--write-predictions")
    found = summary(done)
    assert found["metric"]["name"] == "val/accuracy"
    assert {"val/accuracy", "val/accuracy_mismatched", "val/loss_mismatched"} <= set(found["metrics"])
    words = ("--model", "roberta_lora", "--dataset", "mnli", "--dataset-dir", folder)
    _agree(done, place, ground.host("roberta"), *words)
    matched = (done / "predictions_test.tsv").read_text().splitlines()
    assert matched[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in matched[1:]] == ["0", "1", "2", "3", "4"]
    assert {line.split("\t")[1] for line in matched[1:]} <= set(labels)
    assert len((done / "predictions_test_mismatched.tsv").read_text().splitlines()) == 2


def test_a_local_set_is_described_in_the_config(ground, place, tmp_path):
    lines = [f'"{first} {second}",{label}' for first, second, label in rte_rows(24)]
    (tmp_path / "train.csv").write_text("\n".join(["sentence,kind", *lines]) + "\n")
    config = tmp_path / "config.toml"
    config.write_text('[data]\ntrain = "train.csv"\ntext = "sentence"\nlabel = "kind"\n')
    words = ["train", "bert_lora", "local", "--load", ground.host("bert"), "--lora-config", ground.plan()]
    words += ["--config", config, "--dataset-dir", tmp_path, "--max-epochs", "1"]
    done = run(place / "local", *words)
    assert summary(done)["rows"]["splits"]["validation"]["used"] == 1
    again = run(place / "local-again", "train", "--config", done / "config.toml")
    assert comparable(again) == comparable(done)
    best = done / "checkpoints" / "best.ckpt"
    tested = _tested(done, place, "--load", best, "--load-type", "pl")
    assert tested["metric"]["value"] == summary(done)["metric"]["value"]


def test_a_local_set_of_prompts_is_language_modelling(ground, place, tmp_path):
    lines = [f'{{"ask": "say {word}", "answer": "{word}"}}\n' for word in ("one", "two", "three") * 8]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    config = tmp_path / "config.toml"
    config.write_text('[data]\ntrain = "train.jsonl"\nprompt = "ask"\nresponse = "answer"\n')
    words = ["train", "llama_lora", "local", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    done = run(place / "prompts", *words, "--config", config, "--dataset-dir", tmp_path, "--max-epochs", "1")
    assert 'task = "causal_language_modeling"' in (done / "config.toml").read_text()
    assert summary(done)["metric"]["name"] == "val/perplexity"


def test_an_instruction_set_gives_its_metric_again_without_its_table(ground, place, tmp_path):
    kinds = ("open_qa", "brainstorming")
    records = [
        {"instruction": f"say {n}", "context": "", "response": str(n), "category": kinds[n % 2]}
        for n in range(40)
    ]
    (tmp_path / "databricks-dolly-15k.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    config = tmp_path / "config.toml"
    config.write_text(
        '[data]\ncategories = ["open_qa"]\ntemplate = "{instruction}:{eos}"\nvalidation_examples = 5\n'
    )
    words = ["llama_lora", "dolly", "--dataset-dir", tmp_path]
    load = ["--load", ground.host("llama"), "--lora-config", ground.plan(), "--config", config]
    done = run(place / "dolly", "train", *words, *load, "--max-epochs", "1")
    found = summary(done)
    assert found["metric"]["name"] == "val/perplexity"
    assert math.isclose(found["metric"]["value"], math.exp(found["metrics"]["val/loss"]))
    counts = {"read": 40, "used": 20, "refused": 0, "not_selected": 20}
    assert {name: found["rows"][name] for name in counts} == counts
    assert "| rows read | used | refused | not selected |" in (done / "report.md").read_text()
    _agree(done, place, ground.host("llama"), "--model", words[0], *words[2:])


def test_running_text_is_learned_in_blocks(ground, place, tmp_path, capsys):
    for part, lines in (("train", 30), ("valid", 7), ("test", 5)):
        text = "".join(f" line {n} of {part} \n \n" for n in range(lines))
        (tmp_path / f"wiki.{part}.raw").write_text(text)
    words = ["llama_lora", "wikitext-2", "--load", ground.host("llama"), "--dataset-dir", tmp_path]
    options = ["--max-token-len", "32", "--max-epochs", "1", "--lora-config", ground.plan()]
    done = run(place / "running", "train", *words, *options)
    assert "[[ line 0 of train" in capsys.readouterr().out
    found = summary(done)
    assert math.isclose(found["metrics"]["val/perplexity"], math.exp(found["metrics"]["val/loss"]))
    assert found["rows"]["splits"]["train"] == {"read": 60, "used": 30, "refused": 0, "not_selected": 30}
    adapter = ["--adapter", done / "adapter"]
    tested = summary(run(place / "running-test", "test", *words, *adapter))
    assert set(tested["metrics"]) == {"test/loss", "test/perplexity"}


def test_summaries_are_scored_by_rouge_and_all_are_written(ground, place, tmp_path, capsys):
    lines = [
        json.dumps({"article": f"The {name} is open. " * 30, "headline": "a a\n" + "a a " * number}) + "\n"
        for number, name in enumerate(("school", "museum", "harbor") * 8, 1)
    ]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    (tmp_path / "test.jsonl").write_text("".join(lines[:22]))
    config = tmp_path / "config.toml"
    bare, template = tmp_path / "bare.toml", "Text: {article}\nIn short:"
    bare.write_text(
        '[data]\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
        'document = "article"\nsummary = "headline"\nmax_new_tokens = 24\n'
    )
    config.write_text(f"{bare.read_text()}template = {json.dumps(template)}\n")
    words = ["train", "llama_lora", "local", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--config", config, "--dataset-dir", tmp_path, "--task", "summarization"]
    words += ["--max-token-len", 96, "--learning-rate", 0.02, "--max-epochs", 4, "--batch-size", 4]
    words += ["--write-predictions"]
    done = run(place / "summaries", *words)
    found = summary(done)
    assert 'task = "summarization"' in (done / "config.toml").read_text()
    assert found["metric"]["name"] == "val/loss"
    assert found["rows"]["splits"]["train"] == {"read": 23, "used": 23, "refused": 0, "cut": 23}
    assert "train 23 (23 cut to --max-token-len)" in capsys.readouterr().out
    assert "| split | rows read | used | refused | cut |" in (done / "report.md").read_text()
    metadata = json.loads((done / "adapter" / "metadata.json").read_text())
    assert metadata["template"] == template
    written = [json.loads(line) for line in (done / "predictions_test.jsonl").read_text().splitlines()]
    assert [row["index"] for row in written] == list(range(22))
    golds = [json.loads(line)["headline"] for line in lines[:22]]
    scores = [score_rouge(row["prediction"], gold) for row, gold in zip(written, golds)]
    for name in ("rouge1", "rouge2", "rougeL"):
        mean = sum(score[name] for score in scores) / len(scores)
        assert found["metrics"][f"test/{name}"] == pytest.approx(mean, rel=1e-12)
        assert 0 < mean < 1
    assert rows(done, "test/rougeL") == {found["metric"]["best_step"]: found["metrics"]["test/rougeL"]}
    data = ("--config", bare, "--dataset-dir", tmp_path, "--write-predictions")
    _agree(done, place, ground.host("llama"), "--model", "llama_lora", "--dataset", "local", *data)
    again = [path.read_bytes() for path in place.glob("test-*/predictions_test.jsonl")]
    assert again
    assert set(again) == {(done / "predictions_test.jsonl").read_bytes()}
    # The adapter brings the prompt that it was trained with.
    texts = [path.read_text() for path in place.glob("test-*/samples.jsonl")]
    assert [text for text in texts if "museum is open" in text and "In short:" not in text] == []


def test_a_plain_model_trains_as_a_whole(ground, place):
    options = {"dataset_dir": ground.rte(), "batch_size": 8, "max_epochs": 2, "learning_rate": 0.01}
    done = run(place / "full", "train", ground.host("opt"), "rte", *flags(options))
    assert not (done / "adapter").exists()
    assert not (done / "lora.toml").exists()
    groups = summary(done)["trainable_parameters"]
    assert groups["adapters"] == 0
    network = AutoModelForSequenceClassification.from_pretrained(done / "model")
    AutoTokenizer.from_pretrained(done / "model")
    assert groups["total"] == sum(p.numel() for p in network.parameters())
    assert network.config.label2id == {label: number for number, label in enumerate(LABELS)}
    words = ("--batch-size", 8, "--dataset-dir", ground.rte())
    again = _tested(done, place, done / "model", "rte", *words)
    expected = summary(done)["metrics"]
    assert again["metrics"] == {f"test/{name[4:]}": value for name, value in expected.items()}
    best = done / "checkpoints" / "best.ckpt"
    assert _tested(done, place, "--load", best, "--load-type", "pl")["metrics"] == again["metrics"]


# --- what options do --------------------------------------------------------------------------------------


def test_a_dry_run_writes_nothing(ground, tmp_path, capsys):
    assert launch(*ground.words(project_dir=tmp_path / "out", dry_run=True)) == 0
    assert "none (dry run)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_why_rows_are_refused_and_which_are_trained_and_evaluated_on(
    ground, tmp_path, capsys
):
    rows = [{"prompt": "Q" * (600 if number < 5 else number), "response": "A"} for number in range(1, 12)]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "train.jsonl").write_text("".join([*lines, "[1]\n"]))
    (tmp_path / "dev.jsonl").write_text("".join(lines[-2:]) + json.dumps({"prompt": "X", "response": "A"}))
    config = tmp_path / "config.toml"
    config.write_text(
        'dataset = "local"\n[data]\ntrain = "train.jsonl"\nvalidation = "dev.jsonl"\nprompt = "prompt"\n'
    )
    words = ["train", "llama_lora", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--config", config, "--dataset-dir", tmp_path, "--max-token-len", 128, "--max-bad-rows", 1]
    assert launch(*words, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "train 7 (of 12 read, 5 refused), validation 3\n" in out
    assert (
        "4 of train: no target is left within --max-token-len 128; 1 of train: expected a JSON object" in out
    )
    assert "note: 2 of 3 rows of validation equal a training row in texts and target\n" in out


def test_a_limited_test_counts_what_it_scored(ground, tmp_path):
    words = ["test", "llama", "gsm8k", "--load", ground.host("llama"), "--dataset-dir", ground.gsm8k()]
    done = run(tmp_path / "limited", *words, "--limit-test-samples", 1)
    account = summary(done)["rows"]
    assert account["splits"]["test"] == {"read": 4, "used": 1, "refused": 0, "not_selected": 3}
    assert len((done / "samples.jsonl").read_text().splitlines()) == account["used"] == 1


def test_the_config_is_printed_with_its_sources(ground, tmp_path, capsys):
    assert launch(*ground.words(project_dir=tmp_path / "out", print_config=True, max_epochs=20)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["max_epochs", "20", "command", "line"] in lines
    assert ["optimizer", "adamw", "default"] in lines
    assert not (tmp_path / "out").exists()


def test_early_stopping_counts_evaluations(ground, tmp_path):
    words = ground.words(max_epochs=9, learning_rate=0, early_stopping_patience=2)
    found = summary(run(tmp_path / "run", *words))
    assert found["steps"] == 3 * 4
    assert found["metric"]["best_step"] == 4


def test_the_last_step_is_evaluated_in_the_middle_of_an_epoch(simple, ground, tmp_path):
    done = run(tmp_path / "run", *ground.words(max_epochs=5, max_steps=6))
    assert list(rows(done, "val/accuracy")) == [4, 6]
    assert summary(done)["steps"] == 6
    assert list(rows(done).values()) == list(rows(simple).values())[:6]


def _weights(directory):
    return load_checkpoint(directory / "checkpoints" / "last.ckpt")["state_dict"]


def test_the_last_window_is_divided_by_its_own_length(ground, tmp_path):
    # 20 rows: windows of 8, 8 and 4 rows, as batches of 8 and as accumulated batches of 4. No dropout.
    common = {"dataset_dir": ground.rte("RTE20", train=20), "optimizer": "sgd", "learning_rate": 0.1}
    whole = run(tmp_path / "whole", *ground.words("llama", **common, batch_size=8, max_epochs=1))
    words = ground.words("llama", **common, batch_size=4, max_epochs=1, accumulate_grad_batches=2)
    parts = run(tmp_path / "parts", *words)
    assert list(rows(parts)) == [1, 2, 3]
    torch.testing.assert_close(list(rows(parts).values()), list(rows(whole).values()), rtol=1e-5, atol=0)
    torch.testing.assert_close(_weights(parts), _weights(whole), rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_changes_no_loss(simple, ground, tmp_path):
    done = run(tmp_path / "run", *ground.words(gradient_checkpointing=True))
    torch.testing.assert_close(list(rows(done).values()), list(rows(simple).values()), rtol=1e-6, atol=0)


def test_attention_by_plain_products_changes_no_loss(simple, ground, tmp_path):
    done = run(tmp_path / "run", *ground.words(attention="eager"))
    torch.testing.assert_close(list(rows(done).values()), list(rows(simple).values()), rtol=1e-4, atol=0)
    recorded = json.loads((done / "adapter" / "metadata.json").read_text())
    assert recorded["evaluation"]["attention"] == "eager"


@pytest.mark.parametrize(
    "options",
    [
        {"base_dtype": "bfloat16"},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"precision": "64-true"},
        {"base_dtype": "bfloat16", "precision": "bf16-mixed", "gradient_checkpointing": True},
        {"optimizer": "sgd", "learning_rate": 0.05},
        {"optimizer": "adam", "weight_decay": 0.01, "gradient_clip_val": 1.0},
        {"length_grouped": True},
        pytest.param({"num_workers": 2}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_the_loss_falls(simple, ground, tmp_path, options):
    done = run(tmp_path / "run", *ground.words(**options))
    losses = list(rows(done).values())
    assert sum(losses[4:]) < sum(losses[:4])
    if options == {"num_workers": 2}:
        assert comparable(done) == comparable(simple)
    torch.testing.assert_close(losses[0], rows(simple)[1], rtol=0.5, atol=0)


def test_adapters_stay_in_full_precision_over_a_bfloat16_base(ground, tmp_path):
    done = run(tmp_path / "run", *ground.words(base_dtype="bfloat16", max_steps=1))
    tensors = load_file(done / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_head_has_its_own_learning_rate(ground, tmp_path):
    head = "base_model.model.score.weight"
    start = load_backbone(resolve(str(ground.host("opt")), "--load"), "classification", LABELS).network.score
    words = ground.words(learning_rate=0.01, head_learning_rate=0, max_steps=2)
    still = load_file(run(tmp_path / "still", *words) / "adapter" / "adapter_model.safetensors")
    assert torch.equal(still[head], start.weight)
    assert all(still[name].any() for name in still if "lora_B" in name)
    words = ground.words(learning_rate=0, head_learning_rate=0.01, max_steps=2)
    moved = load_file(run(tmp_path / "moved", *words) / "adapter" / "adapter_model.safetensors")
    assert not torch.equal(moved[head], start.weight)
    assert not any(moved[name].any() for name in moved if "lora_B" in name)


def test_modules_that_are_off_are_not_exported(ground, tmp_path):
    off = {"all_layers": {"v_proj": {**ENTRY, "disable_adapter": True}, "w1": {**ENTRY, "r": 2}}}
    plan = ground.plan("mixed", off)
    done = run(tmp_path / "run", *ground.words(lora_config=plan))
    assert summary(done)["search"] == {"decisions": 0, "enabled": 15, "eligible": 18}
    tensors = load_file(done / "adapter" / "adapter_model.safetensors")
    assert not any("v_proj" in name for name in tensors)
    words = ("--model", "opt_lora", "--dataset", "rte", "--dataset-dir", ground.rte())
    _agree(done, tmp_path, ground.host("opt"), *words)


# --- other tools read it ----------------------------------------------------------------------------------


def test_peft_reads_a_classifier(trained, ground):
    peft = pytest.importorskip("peft")
    base = AutoModelForSequenceClassification.from_pretrained(ground.host("opt"), num_labels=2)
    network = peft.PeftModel.from_pretrained(base, trained / "adapter").eval()
    _same_logits(network, trained, ground, "opt_lora", "rte", ground.rte())


def test_peft_reads_a_language_model(language, ground):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(ground.host("llama"))
    network = peft.PeftModel.from_pretrained(base, language / "adapter").eval()
    _same_logits(network, language, ground, "llama_lora", "gsm8k", ground.gsm8k())


def _same_logits(network, done, ground, model, dataset, folder):
    """Compare with the program's own network, its best checkpoint's tensors in place."""
    from model.assembly.assembly import assemble
    from model.assembly.placement import Plans

    source = resolve(str(ground.host(model.removesuffix("_lora"))), "--load")
    objective = "classification" if dataset == "rte" else "language_modeling"
    backbone = load_backbone(source, objective, LABELS if dataset == "rte" else ())
    ours = assemble(backbone, Plans(), done / "adapter", 0).network.eval()
    inputs = backbone.tokenizer(["The cat is in the house.", "No!"], padding=True, return_tensors="pt")
    network.config.pad_token_id = network.base_model.model.config.pad_token_id = (
        backbone.tokenizer.pad_token_id
    )
    with torch.no_grad():
        expected, found = ours(**inputs).logits, network(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["opt", "bert"])
def test_libraries_print_nothing_of_their_own(ground, place, family, capfd):
    """Neither for checkpointed activations nor for the bar of a network that is written."""
    words = ground.words(family, gradient_checkpointing=True, max_steps=1, project_dir=place / "quiet")
    assert launch(*words) == 0
    assert capfd.readouterr().err == ""
    plain = {"dataset_dir": ground.rte(), "max_steps": 1, "project_dir": place / "quiet"}
    assert launch("train", ground.host(family), "rte", *flags(plain)) == 0
    assert capfd.readouterr().err == ""


def test_classes_in_another_order_than_the_adapters_are_refused(ground, place, capsys):
    """And those of other names are noted; of an adapter as of a checkpoint."""
    texts = []
    for part in ("train", "validation", "test"):
        path = place / f"two-{part}.jsonl"
        lines = ({"text": f"{part} {n}", "label": "ab"[n % 2]} for n in range(8))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        texts.append(str(path))

    def config(*labels):
        path = place / f"{''.join(labels)}.toml"
        table = {"train": texts[0], "validation": texts[1], "test": texts[2], "labels": list(labels)}
        path.write_text(
            "[data]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        )
        return ["--config", path]

    words = ["bert_lora", "local", "--load", ground.host("bert")]
    plan = ["--lora-config", ground.plan("classes"), "--max-steps", 1]
    done = run(place / "classes", "train", *words, *plan, *config("a", "b"))
    capsys.readouterr()
    tests = (["test", *words, "--adapter", done / "adapter"], ["test", "--load", done])
    for number, test in enumerate(tests):
        name = ["--project-dir", place / "classes-tests", "--project", number]
        assert launch(*test, *config("b", "a"), *name) == 2
        line = "was trained with the classes a, b in this order, the data set has b, a"
        assert line in capsys.readouterr().err
        assert launch(*test, *config("a", "b"), *name) == 0
