"""Shortcuts from the command line to the run directory and back, on tiny hosts."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.exchange.export import collect
from model.exchange.peft_format import write
from model.network.backbone import load_backbone
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from model.plan.shortcut_toml import read_shortcuts
from tests.support.killed import child
from tests.support.runs import comparable, files, fork, launch, run, summary
from tests.tools.words import refused
from tools.generate import main as generate

ROLES = ("residual1", "residual2", "shortcut1", "shortcut2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("shortcuts")


@pytest.fixture(scope="module")
def words(ground):
    """OPT with dropout at both kinds; one shortcut off, one weakened."""
    projection = {"r": 3, "shortcut_alpha": 6, "proj_dropout": 0.1, "projector_name": "default"}
    tables = {
        "all_layers": {
            "residual_1": {**projection, "disable_projector": False, "importance_beta": 0.5},
            "residual2": {**projection, "disable_projector": True},
        }
    }
    return ground.words(
        lora_config=ground.plan("ags", lora_dropout=0.1),
        shortcut_config=ground.shortcuts("opt-shortcuts", tables, proj_dropout=0.1),
        checkpoint_every_n_steps=2,
        log_every_n_steps=1,
    )


@pytest.fixture(scope="module")
def trained(place, words):
    return run(place / "trained", *words)


@pytest.fixture(scope="module")
def published(ground, place):
    """LLaMA under the published wiring."""
    return run(
        place / "published",
        *ground.words(
            "llama", shortcut_config=ground.shortcuts(), shortcut_norm="renorm", base_dtype="float32"
        ),
    )


def _tested(place, *words):
    name = f"test-{len(list(place.iterdir()))}"
    return summary(run(place / name, "test", *words))


def _copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run") / "adapter"


def test_the_run_keeps_plan_and_tensors(trained, words):
    found = files(trained)
    assert {"shortcut.toml", "adapter/extra.safetensors", "adapter/metadata.json"} <= found
    plan = words[words.index("--shortcut-config") + 1]
    assert (trained / "shortcut.toml").read_bytes() == Path(plan).read_bytes()
    tensors = load_file(trained / "adapter" / "extra.safetensors")
    on = {f"layer_{i}/{role}" for i in range(3) for role in ROLES if role != "residual2"} - {
        "layer_0/shortcut2"
    }
    assert set(tensors) == {f"{site}.{factor}" for site in on for factor in "AB"}
    assert all(tensors[f"{site}.B"].any() for site in on)
    metadata = json.loads((trained / "adapter" / "metadata.json").read_text())
    assert metadata["shortcuts"] == {"norm": "exact", "renormed": []}
    assert metadata["extra"]["layer_1/residual1"] == {
        "method": "shortcut", "rank": 3, "alpha": 6.0, "strength": 0.5, "keys": {},
    }  # fmt: skip
    assert metadata["evaluation"]["shortcut_norm"] == "exact"
    searched = summary(trained)["search"]
    assert (searched["enabled"], searched["eligible"]) == (18 + 8, 18 + 11)


def test_the_header_of_a_run_names_the_shortcuts(words, capsys):
    assert launch(*words, "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "residual1 3, residual2 3, shortcut1 3, shortcut2 2" in said
    # Rank 3 at six places, rank 2 at five; two matrices of 32 columns each.
    assert "11 of the adapted modules, 1,792 parameters, norm exact" in said


@pytest.mark.parametrize("name", ["trained", "published"])
def test_checkpoint_and_adapter_give_the_number_of_the_run(name, place, ground, request):
    directory = request.getfixturevalue(name)
    family = "opt" if name == "trained" else "llama"
    base = ("--load", ground.host(family))
    adapter = _tested(place, f"{family}_lora_ags", "rte", "--adapter", directory / "adapter", *base,
                      "--dataset-dir", ground.rte())  # fmt: skip
    best = directory / "checkpoints" / "best.ckpt"
    checkpoint = _tested(place, "--load", best, "--load-type", "pl")
    assert (
        adapter["metric"]["value"] == checkpoint["metric"]["value"] == summary(directory)["metric"]["value"]
    )
    assert adapter["metrics"] == pytest.approx(checkpoint["metrics"], rel=1e-5)


def test_the_published_wiring_changes_the_network_and_is_recorded(place, ground, published):
    metadata = json.loads((published / "adapter" / "metadata.json").read_text())
    sites = [f"layer_{i}/{role}" for i in range(3) for role in ROLES[2:]]
    sites.remove("layer_0/shortcut2")
    assert metadata["shortcuts"] == {"norm": "renorm", "renormed": sites}
    exact = run(place / "exact", *ground.words("llama", shortcut_config=ground.shortcuts()))
    assert comparable(exact)["metrics.csv"] != comparable(published)["metrics.csv"]


def test_zero_shortcuts_learn_what_lora_learns(place, ground):
    """A plan that has nothing on but the learning-rate-0 run: at the start the network is the base."""
    plain = run(place / "plain", *ground.words(learning_rate=0))
    with_them = run(place / "with", *ground.words(learning_rate=0, shortcut_config=ground.shortcuts()))
    assert comparable(plain)["metrics.csv"] == comparable(with_them)["metrics.csv"]


def test_a_killed_run_resumes_to_the_same_bytes(place, words, trained):
    directory = place / "killed"
    words = [*words, "--project-dir", place, "--project", "killed"]
    log = place / "killed.log"
    assert fork(child, "step", 5, "SIGKILL", [str(word) for word in words], log) == -9, log.read_text()
    last = directory / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", last, "--load-type", "pl") == 0
    assert comparable(directory) == comparable(trained)
    assert (directory / "config.toml").read_bytes() == (trained / "config.toml").read_bytes()


def test_a_resumed_run_keeps_its_wiring(published, capsys):
    last = published / "checkpoints" / "last.ckpt"
    words = ("train", "--resume-training", "--load", last, "--load-type", "pl", "--shortcut-norm", "exact")
    assert launch(*words) == 2
    assert 'the run began with "renorm", got "exact"' in capsys.readouterr().err


def test_gradient_checkpointing_gives_the_same_losses(place, ground):
    options = {"shortcut_config": ground.shortcuts(), "max_epochs": 1, "log_every_n_steps": 1}
    plain, saving = (
        run(place / name, *ground.words("llama", **options, **more))
        for name, more in (("stored", {}), ("recomputed", {"gradient_checkpointing": True}))
    )
    assert comparable(plain)["metrics.csv"] == comparable(saving)["metrics.csv"]


REFUSED = [
    (("opt_lora", "rte"), "--model: {adapter} has shortcuts; did you mean 'opt_lora_ags'?"),
    (
        ("opt_lora_ags", "rte", "--shortcut-norm", "renorm"),
        "--shortcut-norm: {adapter} was trained with 'exact', got 'renorm'",
    ),
]


@pytest.mark.parametrize(("asked", "line"), REFUSED)
def test_an_adapter_with_shortcuts_needs_lora_ags_and_its_wiring(trained, ground, capsys, asked, line):
    adapter = trained / "adapter"
    given = ("--adapter", adapter, "--load", ground.host("opt"), "--dataset-dir", ground.rte())
    assert launch("test", *asked, *given) == 2
    assert capsys.readouterr().err.strip() == f"error: {line.format(adapter=adapter)}"


def test_lora_ags_is_refused_with_an_adapter_without_shortcuts(place, ground, capsys):
    bare = run(place / "bare", *ground.words(max_epochs=1)) / "adapter"
    given = ("--adapter", bare, "--load", ground.host("opt"), "--dataset-dir", ground.rte())
    assert launch("test", "opt_lora_ags", "rte", *given) == 2
    expected = f"error: --shortcut-config: required with 'opt_lora_ags', as {bare} has no shortcuts"
    assert capsys.readouterr().err.strip() == expected


def test_an_imported_lora_starts_with_new_shortcuts(place, ground):
    bare = run(place / "first", *ground.words(max_epochs=1)) / "adapter"
    options = {"adapter": bare, "lora_config": None, "shortcut_config": ground.shortcuts(), "max_epochs": 1}
    assert "adapter/extra.safetensors" in files(run(place / "second", *ground.words(**options)))


def test_other_programs_are_refused_what_they_cannot_represent(trained, ground, tmp_path):
    adapter, output = trained / "adapter", tmp_path / "out"
    assert refused("tools.merge", "--load", ground.host("opt"), "--adapter", trained, "--output", output) == [
        f"error: --adapter: {adapter} has shortcuts between layers, which do not merge into the weights"
        " of a linear layer; use the adapter unmerged: main test --adapter, tools.generate --adapter"
    ]
    lines = refused("tools.export", trained, "--check", "vllm")
    assert lines[1] == (
        f"error: {adapter / 'extra.safetensors'}: vLLM does not support shortcut, and without them the"
        " outputs would differ; use tools.generate instead"
    )


def test_answers_are_generated_with_shortcuts(ground, tmp_path, capsys):
    """The adapter alone determines which shortcuts there are and how they are wired."""
    backbone = load_backbone(resolve(str(ground.host("llama")), "--load"), "language_modeling")
    plans = read_plan(ground.plan("talk")), read_shortcuts(ground.shortcuts("talk-shortcuts"))
    made = assemble(backbone, Plans(*plans), None, 3, "renorm")
    draw = torch.Generator().manual_seed(0)
    for one in made.attachments.values():
        with torch.no_grad():
            for factor in one.adapter.factors().values():
                factor.copy_(0.3 * torch.randn(factor.shape, generator=draw))
    metadata = {"template": "Q: {question}", "shortcuts": vars(made.stream.wiring)}
    file = collect(made.network, made.attachments, made.methods, made.head, metadata)
    directory = tmp_path / "adapter"
    directory.mkdir()
    write(directory, file, task_type="CAUSAL_LM", base="base", dropout=0.0)
    words = (
        "--load",
        ground.host("llama"),
        "--adapter",
        directory,
        "--prompt",
        "How many?",
        "--max-new-tokens",
        6,
    )
    assert generate([str(word) for word in words]) == 0
    found = capsys.readouterr().out.strip()
    ids = backbone.tokenizer("Q: How many?", return_tensors="pt")
    answer = made.network.eval().generate(**ids, max_new_tokens=6, do_sample=False)[
        0, ids["input_ids"].shape[1] :
    ]
    assert found == backbone.tokenizer.decode(answer, skip_special_tokens=True).strip()


def _break(adapter, change):
    path = adapter / "metadata.json"
    metadata = json.loads(path.read_text())
    change(adapter, metadata)
    path.write_text(json.dumps(metadata))


def _rewrite(adapter, metadata, tensors):
    from configs.runtime.files import sha256

    save_file(tensors, adapter / "extra.safetensors")
    metadata["sha256"]["extra.safetensors"] = sha256(adapter / "extra.safetensors")


def _flip(adapter, metadata):
    content = bytearray((adapter / "extra.safetensors").read_bytes())
    content[-1] ^= 1
    (adapter / "extra.safetensors").write_bytes(content)


def _other_rank(adapter, metadata):
    metadata["extra"]["layer_1/residual1"]["rank"] = 5


def _infinite(adapter, metadata):
    tensors = load_file(adapter / "extra.safetensors")
    tensors["layer_1/residual1.A"][0, 0] = torch.inf
    _rewrite(adapter, metadata, tensors)


def _undescribed(adapter, metadata):
    del metadata["extra"]["layer_1/residual1"]


def _elsewhere(adapter, metadata):
    tensors = load_file(adapter / "extra.safetensors")
    metadata["extra"]["layer_7/residual1"] = metadata["extra"].pop("layer_1/residual1")
    _rewrite(
        adapter,
        metadata,
        {n.replace("layer_1/residual1", "layer_7/residual1"): t for n, t in tensors.items()},
    )


def _of_no_method(adapter, metadata):
    metadata["extra"]["layer_1/residual1"]["method"] = "shortcat"


def _of_a_linear(adapter, metadata):
    metadata["extra"]["layer_1/residual1"]["method"] = "lora"


def _of_no_wiring(adapter, metadata):
    metadata["shortcuts"]["norm"] = "renrom"


DAMAGES = [
    (_flip, "{extra}: its bytes are not those that metadata.json records"),
    (_other_rank, "wrong shape: A (3, 32) for (5, 32), B (32, 3) for (32, 5)"),
    (_infinite, "layer_1/residual1.A"),
    (_undescribed, "{extra}: tensor layer_1/residual1.A: metadata.json does not describe its site"),
    (_elsewhere, "{adapter}: layer_7/residual1 is no site of this network, or holds two adapters"),
    (_of_no_method, "layer_1/residual1: method: no adapter method 'shortcat'"),
    (_of_a_linear, "layer_1/residual1: method: 'lora' cannot be used at this site"),
    (_of_no_wiring, "metadata.json: shortcuts: norm: no value 'renrom', one of exact, renorm"),
    (lambda adapter, _: (adapter / "extra.safetensors").unlink(), "{adapter}: holds no extra.safetensors"),
    (lambda _, metadata: metadata.update(extra=[]), "metadata.json: extra: must be a table of sites"),
]


@pytest.mark.parametrize(("change", "line"), DAMAGES)
def test_a_damaged_adapter_is_refused(trained, ground, tmp_path, capsys, change, line):
    adapter = _copied(trained, tmp_path)
    _break(adapter, change)
    given = ("--adapter", adapter, "--load", ground.host("opt"), "--dataset-dir", ground.rte())
    assert launch("test", "opt_lora_ags", "rte", *given, "--project-dir", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert line.format(adapter=adapter, extra=adapter / "extra.safetensors") in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
