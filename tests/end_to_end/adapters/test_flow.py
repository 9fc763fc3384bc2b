"""Fusing finished adapters by gates, from the command line to the record and back."""

import json
import shutil
import tomllib

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from configs.runtime import kinds
from tests.end_to_end.resume.test_resume import _assert_equal
from tests.support.runs import flags, launch, rows, run, summary
from tests.support.tiny import save_host

EITHER = ["q_proj", "v_proj", "query", "value", "query_proj", "value_proj", "fc1", "up_proj"]
"""Linears of decoders and of encoders; a network has some of them."""
TARGETS = (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("flow")


def _peft_set(host, path, number, task="CAUSAL_LM", targets=None):
    """Save an adapter as the peft library makes it; ranks and alphas differ between the sets."""
    auto = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    torch.manual_seed(number)
    config = peft.LoraConfig(
        r=2 + 2 * number,
        lora_alpha=3 + number,
        target_modules=targets or TARGETS[number % 2],
        task_type=task,
        init_lora_weights=False,
    )
    network = peft.get_peft_model(auto.from_pretrained(host), config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.mul_(0.3)
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sets(ground, place):
    host = ground.host("llama")
    return [_peft_set(host, place / f"set{n}", n) for n in range(3)]


@pytest.fixture(scope="module")
def words(ground):
    options = {"load": ground.host("llama"), "dataset_dir": ground.gsm8k(), "max_token_len": 64}
    return [*flags(options), "--limit-test-samples", "3"]


def _adapters(paths):
    return [word for path in paths for word in ("--adapter", path)]


def _train(words, paths, *more):
    steps = flags({"max_steps": 4, "batch_size": 4, "learning_rate": 0.05})
    return ["train", "llama_lora", "gsm8k", *words, *_adapters(paths), *steps, *more]


@pytest.fixture(scope="module")
def fused(place, words, sets):
    return run(place / "fused", *_train(words, sets[:2], "--checkpoint-every-n-steps", "2"))


def test_only_the_gates_train_and_are_written(fused, sets):
    counts = summary(fused)["trainable_parameters"]
    layers, width = 3, 32
    assert counts["router_or_gates"] == counts["total"] == layers * (2 * width + 2)
    tensors = load_file(fused / "adapter" / "extra.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == counts["total"]
    assert not load_file(fused / "adapter" / "adapter_model.safetensors")
    record = json.loads((fused / "adapter" / "metadata.json").read_text())["flow"]["sets"]
    assert [one["path"] for one in record] == [str(path) for path in sets[:2]]


def test_the_weights_are_drawn_by_layer_and_position(fused):
    table = tomllib.loads((fused / "search" / "gates.toml").read_text())
    assert table["sets"] == ["set0", "set1"]
    assert list(table) == ["sets", "layer_0", "layer_1", "layer_2"]
    report = (fused / "report.md").read_text()
    for name in ("gates.png", "gates_by_position.png"):
        assert (fused / "search" / name).read_bytes().startswith(b"\x89PNG")
        assert f"(search/{name})" in report


def test_peft_does_not_load_it_as_something_else(fused, ground):
    with pytest.raises(KeyError, match="LORA_RESEARCH"):
        peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(ground.host("llama")), fused / "adapter"
        )


def test_the_record_and_the_checkpoint_give_the_runs_number(fused, place, words, capsys):
    wanted = summary(fused)["metrics"]["val/loss"]
    data = ["gsm8k", *words, "--write-predictions", "--project-dir", place / "tests"]
    assert launch("test", "llama_lora", *data, "--adapter", fused, "--project", "adapter") == 0
    assert (
        launch("test", "--load", fused, *words[-2:], "--project-dir", place / "tests", "--project", "run")
        == 0
    )
    answers = [
        (place / "tests" / name / "samples.jsonl").read_text().splitlines() for name in ("adapter", "run")
    ]
    assert answers[0] == answers[1] == (fused / "samples.jsonl").read_text().splitlines()
    assert wanted < float("inf")


def test_a_resumed_run_gives_the_bytes_of_an_uninterrupted_one(fused, place, words, sets):
    from tests.end_to_end.resume.test_resume import _interrupted

    directory = _interrupted(
        place / "cut", _train(words, sets[:2], "--checkpoint-every-n-steps", "2"), "step", 3
    )
    assert launch("train", "--resume-training", directory) == 0
    _assert_equal(directory, fused)


def test_recomputed_activations_change_nothing(fused, place, words, sets):
    again = run(place / "recomputed", *_train(words, sets[:2], "--gradient-checkpointing"))
    assert rows(again) == rows(fused)


def test_moved_sets_are_given_again_and_others_are_refused(fused, place, words, sets, capsys):
    moved = place / "moved"
    shutil.copytree(sets[0], moved)
    shutil.copytree(fused / "adapter", place / "record")
    text = (place / "record" / "metadata.json").read_text().replace(str(sets[0]), str(place / "gone"))
    (place / "record" / "metadata.json").write_text(text)
    test = ["test", "llama_lora", "gsm8k", *words, "--project-dir", place / "moves"]
    capsys.readouterr()
    assert launch(*test, "--adapter", place / "record") == 2
    assert "the set 'set0' is not at" in capsys.readouterr().err
    assert launch(*test, "--adapter", place / "record", *_adapters([moved, sets[1]])) == 0
    assert launch(*test, "--adapter", place / "record", *_adapters([sets[1], moved])) == 2
    assert "is not the set 'set0' that the gates were trained with" in capsys.readouterr().err
    assert launch(*test, "--adapter", place / "record", *_adapters([moved])) == 2
    assert "fuses 2 sets, 1 are given after it" in capsys.readouterr().err


def test_three_sets_and_a_trained_weight_for_each_layer(place, words, sets):
    (place / "bias.toml").write_text('[flow]\ncombine = "bias"\nnames = ["a", "b", "c"]\n')
    done = run(place / "bias", *_train(words, sets, "--config", place / "bias.toml"))
    assert summary(done)["trainable_parameters"]["total"] == 3 * 3
    record = json.loads((done / "adapter" / "metadata.json").read_text())["flow"]["sets"]
    assert [one["name"] for one in record] == ["a", "b", "c"]


def _answers(directory):
    return [json.loads(line)["answer"] for line in (directory / "samples.jsonl").read_text().splitlines()]


def test_constant_weights_of_one_set_are_that_set(place, words, sets):
    """And those of several are not the last one's."""
    (place / "one.toml").write_text('[flow]\ncombine = "constant"\nweights = [1.0, 0.0]\n')
    test = ["test", "llama_lora", "gsm8k", *words]
    alone = run(place / "alone", *test, "--adapter", sets[0])
    as_one = run(place / "as_one", *test, *_adapters(sets[:2]), "--config", place / "one.toml")
    assert _answers(alone) == _answers(as_one)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lora-config", "PLAN"], "--lora-config: not with several --adapter"),
        (["--compile"], "--compile: not with several --adapter"),
    ],
)
def test_what_does_not_go_with_sets_is_refused(ground, words, sets, capsys, more, message):
    more = [ground.plan() if word == "PLAN" else word for word in more]
    capsys.readouterr()
    assert launch(*_train(words, sets[:2], *more)) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_fused_is_refused(ground, place, words, sets, capsys):
    hydra = run(
        place / "hydra",
        *["train", "llama_lora", "gsm8k", *words, "--max-steps", 1],
        *["--lora-config", ground.plan("experts", method="hydra", heads=2)],
    )
    capsys.readouterr()
    assert launch(*_train(words, [hydra, sets[0]])) == 2
    assert "has hydra: only LoRA, and what is exported as LoRA, can be fused" in capsys.readouterr().err
    assert launch("train-dyrealloc", "llama_lora", "gsm8k", *words, *_adapters(sets[:2])) == 2
    assert "fused by train and test, not by train-dyrealloc" in capsys.readouterr().err


@pytest.mark.parametrize("family", kinds.names(kinds.FAMILIES))
def test_a_classifier_starts_as_its_last_set_alone(ground, place, family, capsys):
    """In every family, decoders and encoders, with norms before and after their blocks."""
    host = save_host(family, place / f"host-{family}", num_labels=2)
    paths = [_peft_set(host, place / f"{family}{n}", n, "SEQ_CLS", targets=EITHER) for n in range(2)]
    test = ["test", "auto_lora", "rte", "--load", host, "--dataset-dir", ground.rte()]
    alone = run(place / f"{family}-alone", *test, "--adapter", paths[1])
    more: list[str] = []
    if family == "deberta":  # its query also projects positions, which have no token
        assert launch(*test, *_adapters(paths), "--project-dir", place) == 2
        assert "a position has no token to weigh by" in capsys.readouterr().err
        (place / "fixed.toml").write_text('[flow]\ncombine = "constant"\nweights = [0.0, 1.0]\n')
        more = ["--config", str(place / "fixed.toml")]
    both = run(place / f"{family}-both", *test, *_adapters(paths), *more)
    assert summary(alone)["metrics"] == pytest.approx(summary(both)["metrics"], rel=1e-5)
