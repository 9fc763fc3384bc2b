"""Two processes that share the frozen weights leave what two with whole ones do."""

import pytest

from tests.support.runs import comparable, program

TWO = ("--num-devices", 2, "--accelerator", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def words(ground):
    """Two epochs of four updates; nine rows to evaluate on, three batches here and two there."""
    folder = ground.rte("RTE9", train=32, dev=9)
    plan = ground.plan("sharded", lora_dropout=0.1)
    return ground.words(
        "llama", dataset_dir=folder, lora_config=plan, batch_size=2, max_steps=5, checkpoint_every_n_steps=1
    )


def _run(directory, words, strategy, code=0, driver=()):
    module = "tests.support.killed" if driver else "main"
    place = ["--project-dir", directory.parent, "--project", directory.name]
    done = program(*driver, *words, *TWO, "--strategy", strategy, *place, module=module)
    assert done.returncode == code, done.stderr
    return comparable(directory)


@pytest.mark.slow
def test_a_sharded_run_equals_the_whole_one_and_resumes_exactly(place, words):
    whole = _run(place / "whole", words, "ddp")
    assert _run(place / "sharded", words, "fsdp") == whole
    directory = place / "killed"
    _run(directory, words, "fsdp", -9, ("step", 3, 0, "SIGKILL"))
    checkpoint = directory / "checkpoints" / "last.ckpt"
    resume = ["train", "--resume-training", "--load", checkpoint, "--load-type", "pl"]
    done = program(*resume)
    assert done.returncode == 0, done.stderr
    assert comparable(directory) == whole


@pytest.mark.slow
def test_sharded_processes_answer_as_whole_ones_do(place, ground):
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--dataset-dir", ground.gsm8k(), "--max-steps", 2, "--limit-test-samples", 3]
    words += ["--batch-size", 1, "--base-dtype", "bfloat16", "--gradient-checkpointing"]
    whole = _run(place / "answers-whole", words, "ddp")
    assert _run(place / "answers-sharded", words, "fsdp") == whole
    found, expected = (place / f"answers-{name}" / "samples.jsonl" for name in ("sharded", "whole"))
    assert found.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_sharded_processes_record_routers_as_whole_ones_do(place, words, ground):
    plan = ground.plan("sharded-hydra", method="hydra", heads=3)
    line = ["3" if before == "--max-steps" else word for before, word in zip(["", *words], words)]
    line[line.index("--lora-config") + 1] = str(plan)
    whole = _run(place / "hydra-whole", line, "ddp")
    assert "search/router_usage.toml" in whole
    assert _run(place / "hydra-sharded", line, "fsdp") == whole


def test_a_plain_model_has_nothing_to_shard(ground):
    done = program("train", ground.host("llama"), "rte", "--strategy", "fsdp", "--dataset-dir", ground.rte())
    assert done.returncode == 2
    assert "--strategy: fsdp shards frozen weights, which a plain model" in done.stderr
