"""Adaptive freezing from the command line to the run directory, on tiny hosts: records, resume, processes."""

import tomllib
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from configs.runtime.faults import InputFault
from configs.toml.writer import toml_text
from model.run.actions.train import check
from model.tensors.checkpoint import load_checkpoint
from model.training.callbacks.checkpoints import Checkpoints
from tests.support.killed import child
from tests.support.runs import ENTRY, comparable, fork, launch, pair, program, rows, run, summary

SCORE = {"initial_warmup_epochs": 1, "final_warmup_epochs": 1, "window_steps": 2}
STEPS, EPOCH = 16, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("freezing")


@pytest.fixture(scope="module")
def words(ground):
    """Return the words of a run of four epochs of four updates, with dropout; one module is plain LoRA."""

    def make(name, freezing=None, uv_rule="rectangular", **options):
        tables = {"all_layers": {"q_proj": ENTRY}, **({} if freezing is None else {"freezing": freezing})}
        keys = {"method": "aflora", "uv_rule": uv_rule, "lora_dropout": 0.1}
        defaults = {
            "lora_config": ground.plan(f"freeze-{name}", tables, **keys),
            "max_epochs": 4,
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "lr_scheduler": "linear",
            "gradient_clip_val": 0.5,
            "checkpoint_every_n_steps": 1,
            "log_every_n_steps": 1,
        }
        return ground.words("llama", **{**defaults, **options})

    return make


@pytest.fixture(scope="module")
def done(place, words):
    return run(place / "done", *words("score", SCORE))


def _table(directory):
    return tomllib.loads((directory / "search" / "freezing.toml").read_text())


def _matrices(state):
    """Return the tensors of a checkpoint that may stop: A and B of AFLoRA's rectangles."""
    return {
        name.removeprefix("adapters.").replace(".adapter.", "."): tensor
        for name, tensor in state.items()
        if name.endswith((".A", ".B"))
        and any(role in name for role in ("w1", "w2", "gate", "k_proj", "v_proj"))
    }


def test_all_matrices_stop_between_the_warm_ups_and_their_order_is_recorded(done):
    table = _table(done)
    assert table["total_steps"] == STEPS
    decisions = table["decisions"]
    assert len(decisions) > 2
    steps = [one["step"] for one in decisions]
    assert steps == sorted(set(steps))
    assert steps[0] > EPOCH
    assert steps[-1] <= STEPS - EPOCH + 1
    stopped = [name for one in decisions for name in one["stopped"]]
    state = load_checkpoint(done / "checkpoints" / "last.ckpt")["state_dict"]
    assert sorted(stopped) == sorted(_matrices(state))
    for one in decisions:
        for name in one["stopped"]:
            site, factor = name.split(".")
            layer, role = site.split("/")
            assert table[layer][role][factor] == one["step"]
    assert table["layer_0"]["o_proj"] == {"A": 0, "B": 0}  # a square: it never trained


def test_counts_fall_to_the_vectors_and_the_summary_has_them(done):
    table, numbers = _table(done), summary(done)["freezing"]
    state = load_checkpoint(done / "checkpoints" / "last.ckpt")["state_dict"]
    sizes = {name: tensor.numel() for name, tensor in _matrices(state).items()}
    counts, now = [], table["trainable_start"]
    for step in range(STEPS):
        for one in table["decisions"]:
            if one["step"] == step:
                now -= sum(sizes[name] for name in one["stopped"])
                assert one["trainable"] == now
        counts.append(now)
    groups = summary(done)["trainable_parameters"]
    assert numbers["start"] == table["trainable_start"] == groups["total"] - groups["head"]
    assert numbers["end"] == now == numbers["start"] - sum(sizes.values())
    assert numbers["average"] == pytest.approx(sum(counts) / STEPS)
    assert numbers["matrices"] == numbers["frozen"] == len(sizes)
    report = (done / "report.md").read_text()
    assert "## Freezing" in report
    assert f"{numbers['start']:,} | {numbers['end']:,} | {numbers['average']:,.1f}" in report
    for picture in ("freezing.png", "trainable.png"):
        assert (done / "search" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"search/{picture}" in report


def test_what_is_frozen_is_not_moved_again(place, words, monkeypatch):
    """Its value from the step of its decision on is that before the step; the optimiser forgets it."""
    seen, forgotten = [], []
    original = Checkpoints.on_train_batch_end

    def watch(self, trainer, learner, *rest):
        seen.append({n: p.detach().clone() for n, p in learner.trained().items()})
        forgotten.append(sum(p not in trainer.optimizers[0].state for p in learner.trained().values()))
        return original(self, trainer, learner, *rest)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", watch)
    table = _table(run(place / "watched", *words("watched", SCORE)))
    values = [_matrices(one) for one in seen]
    assert len(values) == STEPS
    for one in table["decisions"]:
        for name in one["stopped"]:
            before = values[one["step"] - 1][name]
            assert all(torch.equal(before, later[name]) for later in values[one["step"] :])
            assert not torch.equal(values[0][name], values[2][name])
    count = sum(len(one["stopped"]) for one in table["decisions"])
    assert forgotten[-1] == count
    vectors = [n for n in seen[0] if n.endswith((".d", ".b"))]
    assert all(not torch.equal(seen[-2][name], seen[-1][name]) for name in vectors)


def test_a_run_that_never_freezes_equals_a_plain_one_byte_for_byte(place, words):
    plain = run(place / "plain", *words("plain"))
    never = {**SCORE, "initial_warmup_epochs": 4, "final_warmup_epochs": 0}
    scored = run(place / "never", *words("never", never))
    for name in ("metrics.csv", "adapter/adapter_model.safetensors", "adapter/extra.safetensors"):
        assert (plain / name).read_bytes() == (scored / name).read_bytes()
    assert not _table(scored)["decisions"]
    numbers = summary(scored)["freezing"]
    assert numbers["start"] == numbers["end"] == numbers["average"]
    assert "freezing" not in summary(plain)
    assert not (plain / "search").exists()


def test_the_adapter_gives_the_runs_number(done, place, ground):
    data = ("--dataset-dir", ground.rte(), "--load", ground.host("llama"))
    line = ("test", "llama_lora", "rte", "--adapter", done, *data)
    adapter = run(place / "a", *line)
    checkpoint = ("--load", done / "checkpoints" / "best.ckpt", "--load-type", "pl")
    best = run(place / "c", "test", *checkpoint)
    value = summary(done)["metric"]["value"]
    assert summary(adapter)["metric"]["value"] == summary(best)["metric"]["value"] == value


@pytest.mark.parametrize(
    ("point", "step"),
    [
        pytest.param("step", 3, marks=pytest.mark.slow),  # before any decision, amid a window
        ("recorded", 9),  # amid the decisions, before the checkpoint of the step
        pytest.param("export", STEPS, marks=pytest.mark.slow),
        *(
            pytest.param("step", step, marks=pytest.mark.slow)
            for step in range(1, STEPS)
            if step not in (3, 4, 8, 12)
        ),
        pytest.param("epoch", 8, marks=pytest.mark.slow),
        pytest.param("report", STEPS, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(place, words, done, point, step):
    directory = place / f"{point}-{step}"
    line = [str(w) for w in (*words("score", SCORE), "--project-dir", place, "--project", directory.name)]
    log = place / f"{directory.name}.log"
    assert fork(child, point, step, "SIGKILL", line, log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    found = comparable(directory)
    assert "search/freezing.toml" in found
    assert found == comparable(done)
    mine, theirs = (load_checkpoint(one / "checkpoints" / "last.ckpt") for one in (directory, done))
    states = [one["optimizer_states"][0]["state"] for one in (mine, theirs)]
    assert states[0].keys() == states[1].keys()


def test_scores_are_of_gradients_before_they_are_clipped(place, words):
    """With a learning rate of 0 nothing else could make a difference."""
    options = {"learning_rate": 0, "max_epochs": 3, "lr_scheduler": "none"}
    tables = []
    for clip in (None, 1e-6):
        name = f"clip-{clip}"
        rule = {**SCORE, "final_warmup_epochs": 0, "initial_share": 0.8, "final_share": 0.3}
        line = words(name, rule, uv_rule="all", **options, gradient_clip_val=clip)
        tables.append((run(place / name, *line) / "search" / "freezing.toml").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("name", "rule", "options", "first"),
    [
        ("epochs", {"rule": "epoch", "after_epochs": 2}, {}, 8),
        ("ratio", {"rule": "epoch", "after_ratio": 0.25}, {}, 4),
        ("accumulated", {"rule": "epoch", "after_epochs": 2}, {"accumulate_grad_batches": 2}, 4),
    ],
)
def test_all_at_once(place, words, name, rule, options, first):
    directory = run(place / name, *words(name, rule, **options))
    (decision,) = _table(directory)["decisions"]
    assert decision["step"] == first
    assert "threshold" not in decision
    numbers = summary(directory)["freezing"]
    steps = summary(directory)["steps"]
    expected = (numbers["start"] * first + numbers["end"] * (steps - first)) / steps
    assert numbers["average"] == pytest.approx(expected)


def test_the_initial_pool_follows_the_schedule(place, words):
    pools = {}
    for pool in ("remaining", "initial"):
        rule = {**SCORE, "pool": pool, "initial_warmup_epochs": 0.5, "window_steps": 1}
        pools[pool] = _table(run(place / pool, *words(pool, rule, uv_rule="all")))
    course = {pool: {one["step"]: one["trainable"] for one in t["decisions"]} for pool, t in pools.items()}
    assert course["initial"] != course["remaining"]
    start, end = pools["initial"]["trainable_start"], min(course["initial"].values())
    elements = start - end
    largest = 4 * 64  # no matrix is larger; a step may leave less than a matrix too much
    for one in pools["initial"]["decisions"]:
        assert one["trainable"] >= end + elements * one["share"] - 8 * largest


def test_seeds_and_other_kinds_are_left_alone(done):
    state = load_checkpoint(done / "checkpoints" / "last.ckpt")
    lora = [name for name in state["state_dict"] if "q_proj" in name]
    assert len(lora) == 6
    own = load_file(done / "adapter" / "extra.safetensors")
    assert {name.split(".")[0] for name in own} == {
        f"layer_{i}/{role}" for i in range(3) for role in ("k_proj", "v_proj", "o_proj", "w1", "gate", "w2")
    }


# Refusals and notes


def _plan(path, freezing, **keys):
    path.write_text(toml_text({"default": {**ENTRY, "method": "aflora", **keys}, "freezing": freezing}))
    return path


@pytest.mark.parametrize(
    ("freezing", "keys", "options", "words"),
    [
        ({**SCORE, "windw": 3}, {}, {}, "[freezing]: unknown key 'windw'"),
        (SCORE, {}, {"max_epochs": 1}, "take 2 epochs, --max-epochs is 1"),
        (SCORE, {"uv_rule": "none"}, {}, "no module that is on has a trainable matrix"),
        (SCORE, {"method": "lora"}, {}, "no module that is on has a trainable matrix"),
        (SCORE, {"method": "vera"}, {}, "no module that is on has a trainable matrix"),
    ],
)
def test_freezing_that_does_not_fit_the_run_is_refused(
    ground, tmp_path, capsys, freezing, keys, options, words
):
    plan = _plan(tmp_path / "plan.toml", freezing, **keys)
    assert launch(*ground.words("llama", lora_config=plan, **options), "--project-dir", tmp_path / "o") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "o").exists()


def test_a_misspelt_table_is_refused(ground, tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text(toml_text({"default": {**ENTRY, "method": "aflora"}, "freezng": SCORE}))
    assert launch(*ground.words("llama", lora_config=plan)) == 2
    assert "[freezng]: unknown table; did you mean 'freezing'?" in capsys.readouterr().err


def test_a_search_while_training_refuses_it(ground, tmp_path, capsys):
    plan = _plan(tmp_path / "plan.toml", SCORE)
    words = ground.words("llama", lora_config=plan, max_epochs=4)
    assert launch("train-dyrealloc", *words[1:], "--project-dir", tmp_path / "o") == 2
    assert "[freezing]: cannot be used with train-dyrealloc: a module that is off" in capsys.readouterr().err


def test_other_actions_note_that_they_do_not_use_it(place, words, done, ground, capsys):
    words = words("score", SCORE)
    run(place / "scored", "imp-test", *words[1:], "--imp-limit-test-batches", 1)
    assert "[freezing] is not used by imp-test" in capsys.readouterr().out
    best = ("--load", done / "checkpoints" / "best.ckpt", "--load-type", "pl")
    run(place / "tested", "test", *best)
    assert "[freezing] is not used by test" in capsys.readouterr().out


# Processes


@pytest.fixture(scope="module")
def two(place, words, ground):
    """One run in two processes and the same in one, where no noise is drawn."""
    options = {"batch_size": None, "dataset_dir": ground.rte("RTE7", train=32, dev=7)}
    line = words("two", SCORE, **options)
    plan = ground.plan("two-plain", {"freezing": SCORE}, method="aflora")
    line[line.index("--lora-config") + 1] = str(plan)
    one = run(place / "one", *line, "--batch-size", 8)
    both = ("--batch-size", 4, "--strategy", "ddp")
    return place / "two", one, pair(place / "two", *line, *both, driver=("epoch", STEPS, "all", "digest"))


def test_two_processes_freeze_what_one_does(two):
    mine, theirs, _ = two
    told = [[(d["step"], d["stopped"]) for d in _table(one)["decisions"]] for one in (mine, theirs)]
    assert told[0] == told[1]
    assert summary(mine)["freezing"] == summary(theirs)["freezing"]
    assert rows(mine) == pytest.approx(rows(theirs), rel=1e-4)


def test_both_processes_hold_the_same_bits(two):
    digests = [line.split()[2] for line in two[2].splitlines() if line.startswith("digest ")]
    assert len(digests) == 2
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_a_killed_run_of_two_processes_resumes_exactly(place, words, two):
    mine = place / "two-killed"
    line = ["train", "--config", two[0] / "config.toml", "--project-dir", place, "--project", mine.name]
    done = program("step", 9, "1", "SIGKILL", *line, module="tests.support.killed", timeout=200)
    assert done.returncode == 4, done.stderr
    last = mine / "checkpoints" / "last.ckpt"
    resume = ["train", "--resume-training", "--load", last, "--load-type", "pl"]
    done = program(*resume, "--num-devices", 2, "--accelerator", "cpu", timeout=200)
    assert done.returncode == 0, done.stderr
    assert comparable(mine) == comparable(two[0])


def test_freezing_under_deepspeed_is_refused():
    options = SimpleNamespace(strategy="deepspeed_stage_2")
    job = SimpleNamespace(assembled=SimpleNamespace(freezing=object()), options=options)
    with pytest.raises(InputFault, match="--strategy: deepspeed_stage_2 cannot freeze matrices"):
        check(job)
