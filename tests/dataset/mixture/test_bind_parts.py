"""`[[data.mix]]` is bound strictly: every fault names the file, the entry and the key."""

import subprocess
import sys

import pytest
import tomli

from configs.command_line.cli import parse
from configs.command_line.config_file import config_text
from configs.runtime import kinds
from configs.runtime.faults import InputFault
from dataset.mixture.bind_parts import ENTRY_KEYS, bind_parts
from tests.support.runs import ROOT

GSM8K = 'dataset = "gsm8k"\n'
LOCAL = 'dataset = "local"\nname = "own"\ntrain = "a.jsonl"\nresponse = "response"\n'


@pytest.fixture
def bind(tmp_path, monkeypatch):
    """Bind `--dataset mix` with these entries."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.toml").write_text("")
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "rows").mkdir()

    def make(*entries, words=(), text="", word="mix"):
        (tmp_path / "run.toml").write_text(text + "".join(f"[[data.mix]]\n{entry}\n" for entry in entries))
        line = ["train", "llama_lora", word, "--config", "run.toml", "--lora-config", "lora.toml", *words]
        return bind_parts(parse(line))

    return make


def test_entries_become_parts(bind, tmp_path):
    bound, parts = bind(
        f'{GSM8K}weight = 1\ncalculator_marks = false\ndataset_dir = "rows"',
        f'{LOCAL}weight = 0.5\ntemplate = "Do {{prompt}}: "',
    )
    assert [part.name for part in parts] == ["gsm8k", "own"]
    assert [part.weight for part in parts] == [1.0, 0.5]
    assert [part.dataset_dir for part in parts] == [tmp_path / "rows", None]
    assert [part.task.objective for part in parts] == ["language_modeling"] * 2
    assert [part.task.template for part in parts] == ["Question: {question}\nAnswer:", "Do {prompt}: "]
    assert [part.is_remote for part in parts] == [False, False]
    assert bound.options.task == "causal_language_modeling"
    assert parts[1].split("validation_mismatched") == "validation_own_mismatched"
    assert parts[1].split("train") == "train_own"


def test_the_directory_of_all_serves_entries_without_their_own(bind, tmp_path):
    (tmp_path / "all").mkdir()
    _, parts = bind(GSM8K, f'{GSM8K}name = "other"\ndataset_dir = "rows"', words=["--dataset-dir", "all"])
    assert [part.dataset_dir for part in parts] == [tmp_path / "all", tmp_path / "rows"]


def test_the_record_gives_the_same_parts(bind, tmp_path):
    bound, parts = bind(f'{GSM8K}dataset_dir = "rows"\nweight = 2', f"{LOCAL}weight = 1")
    text = config_text(bound)
    table = tomli.loads(text)
    assert table["data"]["mix"][0]["dataset_dir"] == str(tmp_path / "rows")
    assert table["data"]["mix"][1]["train"] == str(tmp_path / "a.jsonl")
    (tmp_path / "again.toml").write_text(text)
    again, same = bind_parts(parse(["train", "--config", "again.toml"]))
    assert again.tables == bound.tables
    for part, other in zip(parts, same, strict=True):
        assert (part.name, part.weight, part.dataset_dir) == (other.name, other.weight, other.dataset_dir)
        assert part.task.template == other.task.template
    assert again.options.task == "causal_language_modeling"


AT = "{run}: [[data.mix]]"
REFUSED = {
    "unknown set": (
        [GSM8K, 'dataset = "gms8k"'],
        [f"{AT} 2: dataset: no data set 'gms8k', one of alpaca, * did you mean 'gsm8k'?"],
    ),
    "no set": (["weight = 1"], [f"{AT} 1: dataset: required"]),
    "mixture of mixtures": (['dataset = "mix"'], [f"{AT} 1: dataset: no data set 'mix', *"]),
    "no weight": (
        [f"{GSM8K}weight = 0", f"{LOCAL}weight = -1.5"],
        [
            f"{AT} 1: weight: must be a number in [1e-30, 1e+30], got 0",
            f"{AT} 2: weight: must be a number in [1e-30, 1e+30], got -1.5",
        ],
    ),
    "a weight that is a text": (
        [f'{GSM8K}weight = "1"'],
        [f'{AT} 1: weight: must be a number in [1e-30, 1e+30], got "1"'],
    ),
    "weights of some": (
        [f"{GSM8K}weight = 1", LOCAL],
        [f"{AT} 2: weight: required, other parts have one"],
    ),
    "a name twice": ([GSM8K, GSM8K], [f"{AT} 2: name: required, another part is named 'gsm8k' too"]),
    "names that run together": (
        [GSM8K, f'{GSM8K}name = "gsm8k_hard"'],
        [f"{AT} 2: name: 'gsm8k_hard' and 'gsm8k' cannot be distinguished in the names of metrics"],
    ),
    "a name with a comma": (
        [f'{GSM8K}name = "a,b"'],
        [f"{AT} 1: name: must be of letters, digits, '.', '_' and '-', got 'a,b'"],
    ),
    "several faults of one entry": (
        [f"{GSM8K}weight = 0\ntemplat = 1", "dataset = 3"],
        [
            f"{AT} 1: weight: must be a number in [1e-30, 1e+30], got 0",
            f"{AT} 1: unknown key 'templat'; did you mean 'template'?",
            f"{AT} 2: dataset: must be a string, got 3",
        ],
    ),
    "misspelt common key": (
        [f"{GSM8K}wieght = 1"],
        [f"{AT} 1: unknown key 'wieght'; did you mean 'weight'?"],
    ),
    "misspelt key of the set": (
        [GSM8K, f'{LOCAL}respons = "x"'],
        [f"{AT} 2: unknown key 'respons'; did you mean 'response'?"],
    ),
    "value the set refuses": (
        [f'{GSM8K}template = "no field"', f"{LOCAL}labels = 3"],
        [f"{AT} 1: template: must hold *", f"{AT} 2: labels: must be a list, got 3"],
    ),
    "no file": (
        ['dataset = "local"'],
        [f"{AT} 1: train: --dataset local needs at least one file"],
    ),
    "a file that another part learns from": (
        [LOCAL, 'dataset = "local"\ntrain = "b.jsonl"\nvalidation = "./a.jsonl"\nresponse = "r"'],
        [f"{AT} 2: validation: * is the training file of 'own'"],
    ),
    "two objectives": (
        [GSM8K, 'dataset = "rte"'],
        [
            f"{AT} 2: 'rte' is classification, but 'gsm8k' is language_modeling:"
            " all parts of a mixture must have the same objective"
        ],
    ),
    "two lists of labels": (
        ['dataset = "rte"', 'dataset = "qnli"', 'dataset = "mnli"'],
        [
            f"{AT} 3: 'mnli' has the labels entailment, neutral, contradiction, but 'rte' has"
            " entailment, not_entailment: all parts of a mixture must have the same labels in the same order"
        ],
    ),
}


def matches(line, pattern):
    begin, star, end = pattern.partition("*")
    return line == pattern if not star else line.startswith(begin) and line.endswith(end.strip())


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_entry_is_refused(bind, tmp_path, case):
    entries, expected = REFUSED[case]
    with pytest.raises(InputFault) as caught:
        bind(*entries)
    lines = caught.value.lines
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected):
        assert matches(line, pattern.replace("{run}", str(tmp_path / "run.toml"))), line


def test_a_mixture_needs_its_entries(bind, tmp_path):
    with pytest.raises(
        InputFault, match=r"--dataset: mix needs its parts, \[\[data.mix\]\] in a config TOML"
    ):
        bind()
    with pytest.raises(InputFault, match=r"run.toml: \[data\]: unknown key 'mixx'; did you mean 'mix'\?"):
        bind(text="[data]\nmixx = 1\n")
    with pytest.raises(InputFault, match=r"run.toml: \[data\]: mix: must be a list, got 1"):
        bind(text="[data]\nmix = 1\n")


def test_entries_need_the_data_set_mix(bind):
    with pytest.raises(InputFault, match=r"\[data\]: mix: needs --dataset mix, got 'gsm8k'"):
        bind(GSM8K, word="gsm8k")


def test_an_action_the_parts_do_not_support_is_refused(bind):
    with pytest.raises(InputFault, match="--task: the parts of the mixture are for causal_language_modeling"):
        bind(GSM8K, LOCAL, words=["--task", "classification"])


def test_classification_sets_with_one_list_of_labels_mix(bind):
    bound, parts = bind('dataset = "rte"', 'dataset = "qnli"')
    assert [part.is_remote for part in parts] == [True, True]
    assert bound.options.task == "classification"


@pytest.mark.parametrize("kind", kinds.names(kinds.TASKS))
def test_no_data_set_has_an_option_named_like_an_entry_key(kind):
    options = kinds.load(kinds.TASKS, kind).options
    assert not set(ENTRY_KEYS) & set(options.__dataclass_fields__)


def test_a_wrong_entry_is_reported_without_the_heavy_libraries(tmp_path):
    (tmp_path / "lora.toml").write_text("")
    (tmp_path / "run.toml").write_text('[[data.mix]]\ndataset = "gsm8k"\nweight = 0\n')
    program = (
        "import sys, main\n"
        "words = ['llama_lora', 'mix', '--config', 'run.toml', '--lora-config', 'lora.toml']\n"
        "code = main.main(['train', *words])\n"
        "print(code, [name for name in ('torch', 'transformers', 'lightning') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "2 []", done.stderr
    assert "[[data.mix]] 1: weight: must be a number in [1e-30, 1e+30], got 0" in done.stderr
