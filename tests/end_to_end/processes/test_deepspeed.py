"""Two processes that train through DeepSpeed leave what two under DDP do, and go on exactly."""

from importlib.util import find_spec

import pytest
import torch

from configs.schema.options import DEEPSPEED
from model.tensors.checkpoint import load_checkpoint
from tests.support.runs import comparable, program, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]
TWO = ("--num-devices", 2, "--accelerator", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def words(ground):
    """Six updates of three batches and less; nine rows to evaluate on, three batches here and two there."""
    folder = ground.rte("RTE9", train=32, dev=9)
    plan = ground.plan("sharded", lora_dropout=0.1)
    options = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5, "weight_decay": 0.1}
    return ground.words(
        "opt", dataset_dir=folder, lora_config=plan, batch_size=2, checkpoint_every_n_steps=1, **options
    )


@pytest.fixture(scope="module")
def whole(place, words):
    return _run(place / "whole", words, "ddp")


def _run(directory, words, strategy, code=0, driver=()):
    module = "tests.support.killed" if driver else "main"
    where = ["--project-dir", directory.parent, "--project", directory.name]
    done = program(*driver, *words, *TWO, "--strategy", strategy, *where, module=module, timeout=600)
    assert done.returncode == code, done.stderr
    return directory


def _last(directory):
    return load_checkpoint(directory / "checkpoints" / "last.ckpt")


def _assert_alike(found, expected):
    """Compare trees of tensors; their form must be the same, numbers may be rounded otherwise."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            _assert_alike(found[key], value)
    elif isinstance(expected, list | tuple):
        for one, other in zip(found, expected, strict=True):
            _assert_alike(one, other)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize("word", DEEPSPEED)
def test_a_run_in_shares_is_the_whole_one_and_resumes_exactly(place, words, whole, word):
    directory = _run(place / word, words, word)
    found, expected = rows(directory), rows(whole)
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-4)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "switches", "position"):
        _assert_alike(_last(directory)[key], _last(whole)[key])
    killed = place / f"{word}-killed"
    _run(killed, words, word, -9, ("step", 4, 0, "SIGKILL"))
    checkpoint = killed / "checkpoints" / "last.ckpt"
    done = program("train", "--resume-training", "--load", checkpoint, "--load-type", "pl", timeout=600)
    assert done.returncode == 0, done.stderr
    assert comparable(killed) == comparable(directory)


def test_processes_with_shared_weights_answer_as_whole_ones_do(place, ground):
    words = ["train", "llama_lora", "gsm8k", "--load", ground.host("llama"), "--lora-config", ground.plan()]
    words += ["--dataset-dir", ground.gsm8k(), "--max-steps", 2, "--limit-test-samples", 3]
    words += ["--batch-size", 1, "--base-dtype", "bfloat16", "--gradient-checkpointing"]
    whole = _run(place / "answers-whole", words, "ddp")
    shared = _run(place / "answers-shared", words, "deepspeed_stage_3_offload")
    assert (shared / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()


def test_a_gradient_that_is_not_finite_ends_the_run(place, ground):
    words = ground.words("llama", dataset_dir=ground.rte(), learning_rate=1e20)
    _run(place / "overflow", words, "deepspeed_stage_3", 3)
