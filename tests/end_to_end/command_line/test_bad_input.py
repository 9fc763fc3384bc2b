"""Bad input on the command line: one line a fault, exit code 2, nothing written, nothing heavy imported."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.runs import ROOT, files, launch, run

SECONDS = 0.5
BATCH = """
import contextlib, io, json, os, resource, sys
from main import main

def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

results = []
for number, words in enumerate(json.load(sys.stdin)):
    if "ordinary" in sys.argv and number == 1 and os.getuid() == 0:  # the first made every import
        os.setgid(65534), os.setuid(65534)
    before, out, err = seconds(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    heavy = [n for n in ("torch", "lightning", "transformers", "numpy", "datasets") if n in sys.modules]
    results.append([code, out.getvalue(), err.getvalue(), seconds() - before, heavy])
json.dump(results, sys.stdout)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project directory's parent with spoilt files next to valid ones."""
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def spoilt(ground, place):
    """Return a dict of files and directories, each with one fault."""
    made = {}

    def text(name, content, raw=False):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if raw else content.encode())
        made[name] = path
        return path

    top = (
        '[default]\nr = 4\nlora_alpha = 8\nlora_dropout = 0.0\nadapter_name = "a"\ndisable_adapter = false\n'
    )
    text("misspelt.toml", "seed = 1\n\n# rates\n\n\nlearning_rte = 1e-4\n")
    text("typed.toml", 'max_epochs = "3"\n')
    text("broken.toml", "seed = 1\nbatch_size = 4\n\n\n\n\nmax_epochs == 3\n")
    text("epochs.toml", "max_epochs = 3\n")
    text("kproj.toml", top + top.replace("default", "all_layers.kproj"))
    text("rank.toml", top.replace("r = 4", 'r = "8"'))
    header, good = "index\tsentence1\tsentence2\tlabel", "0\ta b\tc\tentailment"
    for name, line in {"field": "7\ta\tb\tentailment\tx", "label": "7\ta\tb\tmaybe"}.items():
        lines = [header, *[good] * 7, line, good]
        text(f"{name}/train.tsv", "\n".join(lines) + "\n")
        text(f"{name}/dev.tsv", f"{header}\n{good}\n")
    text("bytes/train.tsv", f"{header}\n{good}\n".encode() + b"1\ta\xff\tb\tentailment\n", raw=True)
    text("bytes/dev.tsv", f"{header}\n{good}\n")
    row = json.dumps({"question": "1 + 1?", "answer": "2\n#### 2"})
    text("cut/train.jsonl", f"{row}\n{row}\n{row[:20]}")
    text("cut/test.jsonl", row + "\n")
    host = ground.host("opt")
    for name in ("empty", "short"):
        (place / name).mkdir()
        for path in host.iterdir():
            (place / name / path.name).write_bytes(path.read_bytes())
    (place / "empty" / "config.json").write_text("")
    weights = place / "short" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return made


def _cases(place):
    """Return (words that spoil a right command line, every error line in full or its parts)."""
    precision = ["--precision", "64"] if find_spec("deepspeed") else []  # refused for either reason
    return {
        "1": (["--batch-size", "-4"], [["--batch-size: must be a whole number of at least 1, got -4"]]),
        "1 word": (["--batch-size", "４"], [["--batch-size: must be a whole number"]]),
        "1 underscore": (["--max-epochs", "1_0"], [["--max-epochs: must be a whole number"]]),
        "2": (["--learning-rate", "inf"], [["--learning-rate: "]]),
        "2 nan": (["--weight-decay", "nan"], [["--weight-decay: "]]),
        "2 negative": (["--learning-rate", "-1e-3"], [["--learning-rate: ", "-1e-3"]]),
        "3": (["--max-ep", "3"], [["--max-ep: ", "did you mean '--max-epochs'?"]]),
        "4": (["--turn-on-percentile", "1.2"], [["--turn-on-percentile: ", "1.2"]]),
        "5": (["--realloc-N", "often"], [["--realloc-N: ", "often"]]),
        "6": (["--importance-test-name", "gradnorm"], [["--importance-test-name: ", "'grad_norm'?"]]),
        "7": (["--dyrealloc-ags-mode", "separated"], [["--dyrealloc-ags-mode: ", "opt_lora"]]),
        "8": (["--dataset", "mrcp"], [["--dataset: ", "did you mean 'mrpc'?"]]),
        "9": (["--config", place / "misspelt.toml"], [["misspelt.toml:6: ", "'learning_rate'?"]]),
        "10": (["--config", place / "typed.toml"], [["typed.toml", "max_epochs", "whole number"]]),
        "11": (["--config", place / "broken.toml"], [["broken.toml:7: "]]),
        "13": (["--lora-config", place / "kproj.toml"], [["kproj.toml: ", "'k_proj'?"]]),
        "14": (["--lora-config", place / "rank.toml"], [["rank.toml: [default] r: ", "whole number"]]),
        "15": (["--dataset-dir", place / "field"], [["field/train.tsv:9: ", "(1 of 9 rows)"]]),
        "17": (["--dataset-dir", place / "label"], [["label/train.tsv:9: label 'maybe' in 1 of 9 rows"]]),
        "19": (["--dataset-dir", place / "bytes"], [["bytes/train.tsv:3: ", "UTF-8"]]),
        "20": (["--load", place / "empty"], [["empty/config.json: is empty"]]),
        "21": (["--load", place / "short"], [["short/model.safetensors: "]]),
        "no such directory": (["--load", "./nowhere"], [["--load: no file or directory './nowhere'"]]),
        "no such checkpoint": (
            ["--load", place / "gone.ckpt", "--load-type", "pl"],
            [["--load: no file '", "gone.ckpt'"]],
        ),
        "given twice": (["--seed", "1", "--seed", "2"], [["--seed: "]]),
        "no package": (
            ["--strategy", "deepspeed_stage_2", *precision],
            [["--strategy: ", "'deepspeed_"]],
        ),
        "mmlu": (["--mmlu-mode", "five"], [["--mmlu-mode: ", "fs, zs"]]),
        "escaped": (["--dataset", "a\nb\x1b[1m"], [["--dataset: ", "a\\nb\\x1b"]]),
        "several at once": (
            ["--batch-size", "0", "--max-ep", "3", "--config", place / "misspelt.toml"],
            [["--batch-size: "], ["--max-ep: "], ["misspelt.toml:6: "]],
        ),
    }


def _spoil(words, changes):
    """Put changed options in the place of the right ones; further ones at the end."""
    words, changes = [str(word) for word in words], [str(change) for change in changes]
    replaced = set()
    for flag, value in zip(changes, changes[1:]):
        if flag in words and flag not in replaced and changes.count(flag) == 1:
            words[words.index(flag) + 1] = value
            replaced.add(flag)
    if changes[0] == "--dataset":
        words[2] = changes[1]
        return words
    rest, skip = [], False
    for change in changes:
        skip, was = change in replaced, skip
        rest += [] if skip or was else [change]
    return words + rest


def _in_one_process(batch):
    """Run command lines one after the other in one fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", BATCH],
        input=json.dumps([[str(word) for word in words] for words in batch]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def test_bad_input_is_refused_in_plain_lines_at_once(ground, place, spoilt):
    cases = _cases(place)
    right = ground.words(project_dir=place / "out")
    cases_16 = ["train", "opt_lora", "gsm8k", *right[3:]]
    batch = {name: _spoil(right, changes) for name, (changes, _) in cases.items()}
    batch["16"] = _spoil(cases_16, ["--dataset-dir", place / "cut"])
    expected = {name: lines for name, (_, lines) in cases.items()}
    expected["16"] = [["cut/train.jsonl:3: ", "(1 of 3 rows)"]]
    for name, found in zip(batch, _in_one_process(batch.values())):
        code, out, err, seconds, heavy = found
        lines = err.splitlines()
        assert (code, out, heavy) == (2, "", []), (name, found)
        assert len(lines) == len(expected[name]), (name, err)
        for line, parts in zip(lines, expected[name]):
            assert line.startswith("error: "), (name, err)
            assert all(str(part) in line for part in parts), (name, err)
        assert "Traceback" not in err
        assert seconds < SECONDS, (name, seconds)
    assert not (place / "out").exists()


def test_a_repeated_default_wins_over_the_config(ground, place, spoilt):
    words = ground.words(max_epochs=None, config=place / "epochs.toml", print_config=True)
    (_, config, *_), (_, line, *_) = _in_one_process([words, [*words, "--max-epochs", "20"]])
    show = {
        name: value
        for name, value, *_ in (row.split() for row in config.splitlines() if len(row.split()) > 2)
    }
    assert show["max_epochs"] == "3"
    assert ["max_epochs", "20", "command", "line"] in [row.split() for row in line.splitlines()]


@pytest.mark.parametrize(
    ("words", "code", "start"),
    [
        (["--help"], 0, "usage: "),
        (["train", "--help"], 0, "usage: "),
        (["train", "opt_lora", "rte", "--batch-size", "-4"], 2, "error: --batch-size: must be"),
        ([], 2, "error: ACTION: "),
    ],
    ids=["help", "train help", "refused", "empty"],
)
def test_a_separate_process_refuses_at_once(tmp_path, words, code, start):
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    measured = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "main", *words]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        measured, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    *err, seconds = done.stderr.splitlines()
    said = done.stdout.splitlines() if code == 0 else err
    assert done.returncode == code
    assert said[0].startswith(start)
    assert "Traceback" not in done.stderr
    assert float(seconds) < SECONDS
    assert not list(tmp_path.iterdir())


_MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


# --- refusals that need the libraries or a run ------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(ground, place):
    return run(place / "finished", *ground.words(max_steps=1))


def _refused(capsys, *words):
    capsys.readouterr()
    assert launch(*words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in lines), lines
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def adapter(finished, tmp_path):
    """A copy of a run's adapter without the digests of its own."""
    copy = tmp_path / "adapter"
    copy.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (copy / name).write_bytes((finished / "adapter" / name).read_bytes())
    return copy


def _test_words(ground, place, adapter):
    words = ["test", "opt_lora", "rte", "--load", ground.host("opt"), "--dataset-dir", ground.rte()]
    return [*words, "--adapter", adapter, "--project-dir", place / "out"]


def test_an_adapter_of_another_rank_than_its_configuration(ground, place, adapter, capsys):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "r": 16}))
    line = _refused(capsys, *_test_words(ground, place, adapter))
    assert "r = 16" in line
    assert "rank 4" in line
    assert not (place / "out").exists()


def test_an_adapter_with_an_infinite_value(ground, place, adapter, capsys):
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    name = sorted(tensors)[3]
    tensors[name][0, 0] = float("inf")
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert name in _refused(capsys, *_test_words(ground, place, adapter))
    assert not (place / "out").exists()


def test_an_adapter_that_was_changed(ground, place, finished, tmp_path, capsys):
    copy = tmp_path / "changed"
    copy.mkdir()
    for path in (finished / "adapter").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    content = bytearray((copy / "adapter_model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(bytes(content))
    assert "adapter_model.safetensors: " in _refused(capsys, *_test_words(ground, place, copy))


@pytest.mark.parametrize("action", ["test", "train"])
def test_a_checkpoint_that_was_cut(ground, place, finished, capsys, action):
    last, cut = finished / "checkpoints" / "last.ckpt", finished / "checkpoints" / "cut.ckpt"
    cut.write_bytes(last.read_bytes()[:100])
    words = [action, "--load", cut, "--load-type", "pl", "--project-dir", place / "out"]
    words += ["--model", "opt_lora", "--dataset", "rte", "--dataset-dir", ground.rte()]
    try:
        assert "cut.ckpt: " in _refused(capsys, *words)
        assert not (place / "out").exists()
    finally:
        cut.unlink()


def test_a_run_that_is_still_going_is_left_alone(ground, finished, tmp_path, capsys):
    directory = tmp_path / "going"
    directory.mkdir()
    for name in files(finished) - {"summary.json"}:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes((finished / name).read_bytes())
    before = {name: (directory / name).read_bytes() for name in files(directory)}
    with FileLock(directory / ".lock"):
        last = directory / "checkpoints" / "last.ckpt"
        words = ["train", "--resume-training", "--load", last, "--load-type", "pl"]
        assert _refused(capsys, *words) == f"error: {directory}: another run is writing to this directory"
        new = ground.words(project_dir=tmp_path, project="going")
        assert str(directory) in _refused(capsys, *new)
    found = {name: (directory / name).read_bytes() for name in files(directory) - {".lock"}}
    assert found == before


def test_a_directory_without_write_permission(ground):
    """As an ordinary user; refused before anything heavy is imported."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for source in (ground.host("opt"), ground.rte()):
            (place / source.name).mkdir()
            for path in source.iterdir():
                (place / source.name / path.name).write_bytes(path.read_bytes())
        (place / "plan.toml").write_bytes(ground.plan().read_bytes())
        (place / "locked").mkdir(mode=0o555)
        (place / "locked").chmod(0o555)
        words = ["train", "opt_lora", "rte", "--load", place / "opt", "--dataset-dir", place / "RTE"]
        words += ["--lora-config", place / "plan.toml", "--project-dir", place / "locked"]
        done = subprocess.run(
            [sys.executable, "-c", BATCH, "ordinary"],
            input=json.dumps([[str(word) for word in (*words, *more)] for more in (["--print-config"], [])]),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        *_, (code, _, err, seconds, heavy) = json.loads(done.stdout)
        assert (code, heavy) == (2, [])
        assert err == f"error: --project-dir: '{place / 'locked'}' is not writable\n"
        assert seconds < SECONDS
        assert not list((place / "locked").iterdir())
