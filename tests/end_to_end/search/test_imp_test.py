"""`imp-test` from the command line: score files, what they were made from, going on, two processes."""

import signal

import pytest
import tomli

from configs.runtime import kinds
from model.search.heuristic import HeuristicKind
from model.search.heuristics import alpha_test
from model.search.score_file import read_scores
from model.site import SiteKey
from tests.support.killed import child
from tests.support.runs import files, fork, launch, pair, run, summary

TRAINING = {"alpha_limit_zptrain_batches": 2, "max_epochs": 2, "learning_rate": 0.2}
HEURISTICS = kinds.names(kinds.HEURISTICS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("imp_test")


@pytest.fixture(scope="module")
def words(ground):
    """Return the words of an importance test of a tiny classifier: 4 batches of 8, all sites."""

    def make(method, family="opt", **options):
        _, *rest = ground.words(family, importance_test_name=method, **{"max_epochs": None, **options})
        return ["imp-test", *rest]

    return make


def scores(directory, method):
    return read_scores(directory / "search" / f"scores_{method}.toml")


@pytest.fixture(scope="module")
def tested(place, words):
    """Return the run of a method, made once."""
    made = {}

    def get(method):
        if method not in made:
            options = TRAINING if method == "alpha_test" else {}
            made[method] = run(place / method, *words(method, imp_limit_test_batches=3, **options))
        return made[method]

    return get


@pytest.mark.parametrize("method", HEURISTICS)
def test_every_module_is_scored_and_the_file_records_from_what(tested, method):
    found = scores(tested(method), method)
    assert len(found.values) == 3 * 6
    least = {"constant": 0, "synflow": 1}.get(method, 3)
    assert found.metadata["limit_test_num"] == least
    assert found.metadata["examples"] == 8 * least
    assert found.metadata["method"] == method
    assert found.metadata["dataset"] == "rte"
    assert found.metadata["score_init"] == ("random_b" if method in ("snip", "synflow") else "as_is")
    assert found.widths["w1"] == (32, 48)
    if method not in ("constant", "alpha_test"):
        assert all(score > 0 for score in found.values.values())
    result = summary(tested(method))
    assert result["search"] == {"decisions": 0, "enabled": 18, "eligible": 18}
    assert "metrics.csv" not in files(tested(method)) or method == "alpha_test"


@pytest.mark.parametrize(  # the contract suite repeats every heuristic's scores
    "method",
    [m if m == "grad_norm" else pytest.param(m, marks=pytest.mark.slow) for m in HEURISTICS],
)
def test_equal_runs_give_equal_files(tested, place, words, method):
    options = TRAINING if method == "alpha_test" else {}
    again = run(place / f"{method}_again", *words(method, imp_limit_test_batches=3, **options))
    for name in (f"search/scores_{method}.toml", "summary.json"):
        assert (again / name).read_bytes() == (tested(method) / name).read_bytes()


def test_modules_that_the_plan_switches_off_are_not_scored(ground, place, words):
    off = {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "adapter_name": "default",
        "disable_adapter": True,
    }
    plan = ground.plan("some_off", {"all_layers": {"w1": off, "k_proj": {**off, "r": 0}}})
    found = scores(run(place / "some_off", *words("grad_norm", lora_config=plan)), "grad_norm")
    assert {key.role for key in found.values} == {"q_proj", "v_proj", "o_proj", "w2"}


def test_a_ratio_is_a_share_of_the_batches(place, words):
    found = scores(run(place / "share", *words("fisher", imp_limit_test_batches=0.3)), "fisher")
    assert found.metadata["limit_test_num"] == 2  # of four
    found = scores(run(place / "more", *words("fisher", imp_limit_test_batches=99)), "fisher")
    assert found.metadata["limit_test_num"] == 4


def test_equal_scores_are_noted(place, words, capsys):
    run(place / "ties", *words("snip", score_init="as_is"))
    assert "note: all 18 scores are equal" in capsys.readouterr().out


def test_language_models_are_scored_on_gsm8k(place, ground, words):
    options = {"dataset": "gsm8k", "dataset_dir": ground.gsm8k(), "batch_size": 4}
    made = words("synflow", "llama", **options)
    made.remove("rte")
    found = scores(run(place / "gsm8k", *made), "synflow")
    flowing = [score for key, score in found.values.items() if key.role not in ("q_proj", "k_proj")]
    asleep = [score for key, score in found.values.items() if key.role in ("q_proj", "k_proj")]
    assert max(asleep) < 1e-9 * min(flowing)


def test_alpha_test_names_its_metric_and_trains_first(tested):
    found = scores(tested("alpha_test"), "alpha_test")
    assert found.metadata["metric"] == "accuracy"
    assert 0 <= found.metadata["zero-proxy_metric"] <= 1
    assert all(score in range(11) for score in found.values.values())
    rows = (tested("alpha_test") / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2  # two epochs of two batches


def test_a_checkpoint_replaces_training(tested, place, words):
    checkpoint = tested("alpha_test") / "checkpoints" / "last.ckpt"
    other = place / "elsewhere" / "checkpoints" / "last.ckpt"  # of no run: weights alone
    other.parent.mkdir(parents=True)
    other.write_bytes(checkpoint.read_bytes())
    base = {"backbone_model": _host(tested("alpha_test")), "load": other, "load_type": "pl"}
    found = run(place / "given", *words("alpha_test", imp_limit_test_batches=3, **base))
    expected = scores(tested("alpha_test"), "alpha_test")
    assert scores(found, "alpha_test").values == expected.values
    assert "metrics.csv" not in files(found)


def _host(directory):
    return tomli.loads((directory / "config.toml").read_text())["load"]


@pytest.mark.parametrize("step", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_alpha_test_resumes_in_its_directory(tested, place, words, step):
    directory = place / f"killed_{step}"
    options = {**TRAINING, "checkpoint_every_n_steps": 1}
    made = words("alpha_test", imp_limit_test_batches=3, **options)
    named = [*made, "--project-dir", directory.parent, "--project", directory.name]
    log = directory.with_name(f"{directory.name}.log")
    assert fork(child, "step", step, "SIGKILL", [str(word) for word in named], log) == -9, log.read_text()
    _go_on(directory)
    assert scores(directory, "alpha_test") == scores(tested("alpha_test"), "alpha_test")


def _go_on(directory):
    checkpoint = directory / "checkpoints" / "last.ckpt"
    words = ["imp-test", "--resume-training", "--load", checkpoint, "--load-type", "pl"]
    assert launch(*words) == 0


def test_existing_scores_are_not_computed_again(tested, place, words, monkeypatch):
    directory = place / "broken_off"
    options = dict(TRAINING)
    run(directory, *words("alpha_test", imp_limit_test_batches=3, **options))
    path = directory / "search" / "scores_alpha_test.toml"
    whole = path.read_bytes()
    kept = [line for line in whole.decode().splitlines() if "w2" not in line or "widths" in line]
    path.write_text("\n".join(kept) + "\n")
    (directory / "summary.json").unlink()
    asked = []
    true = alpha_test.smallest_place
    monkeypatch.setattr(alpha_test, "smallest_place", lambda violates: asked.append(1) or true(violates))
    _go_on(directory)
    assert path.read_bytes() == whole
    assert len(asked) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_search(place, words, monkeypatch, capsys, number, code):
    from model.search.heuristics import fisher

    def score(probe):
        signal.raise_signal(number)
        return dict.fromkeys(probe.attachments, 1.0)

    before = signal.getsignal(number)
    monkeypatch.setattr(fisher, "HEURISTIC", HeuristicKind(score))
    directory = place / f"stopped_{code}"
    named = [*words("fisher"), "--project-dir", directory.parent, "--project", directory.name]
    assert launch(*named) == code
    assert f"error: stopped by signal {int(number)} in the search" in capsys.readouterr().err
    assert not (directory / "search").exists()
    assert signal.getsignal(number) == before


def test_another_action_cannot_resume(tested, capsys):
    checkpoint = tested("alpha_test") / "checkpoints" / "last.ckpt"
    assert launch("train", "--resume-training", "--load", checkpoint, "--load-type", "pl") == 2
    assert "error: ACTION: the run began with imp-test, got train" in capsys.readouterr().err


def test_plain_models_have_nothing_to_score(ground, capsys):
    assert launch("imp-test", ground.host("opt"), "rte", "--dataset-dir", ground.rte()) == 2
    assert "imp-test needs adapters, got the plain model" in capsys.readouterr().err


_slow = pytest.mark.slow


@pytest.mark.parametrize(
    "method",
    ["grad_norm", *(pytest.param(one, marks=_slow) for one in ("snip", "synflow", "fisher", "alpha_test"))],
)
def test_two_processes_find_the_scores_of_one(place, words, method):
    options = {"imp_limit_test_batches": 3, "alpha_limit_zptrain_batches": 2}
    options |= {"max_epochs": 1, "dataset_dir": _folder(words), "learning_rate": 0.2}
    one = run(place / f"one_{method}", *words(method, batch_size=8, **options))
    two = place / f"two_{method}"
    pair(two, *words(method, batch_size=4, **options))
    if method == "alpha_test":  # trained weights agree to rounding alone; places on the grid mostly
        pairs = zip(scores(one, method).values.values(), scores(two, method).values.values())
        assert sum(abs(a - b) for a, b in pairs) <= 2
    else:
        assert scores(two, method) == scores(one, method)
    assert SiteKey(0, "q_proj") in scores(two, method).values


def _folder(words):
    line = words("constant")
    return line[line.index("--dataset-dir") + 1]


_PRECISIONS = [
    ("grad_norm", {"base_dtype": "bfloat16", "precision": "bf16-mixed", "gradient_checkpointing": True}),
    ("snip", {"precision": "bf16-true"}),
    ("fisher", {"precision": "64-true"}),
    ("synflow", {"precision": "bf16-mixed"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), _PRECISIONS, ids=[method for method, _ in _PRECISIONS])
def test_precisions_give_similar_scores(tested, place, words, method, options):
    found = run(place / f"precise_{method}", *words(method, imp_limit_test_batches=3, **options))
    expected = scores(tested(method), method).values
    tolerance = 1e-5 if options["precision"] == "64-true" else 0.1
    assert scores(found, method).values == pytest.approx(expected, rel=tolerance)


def test_shards_are_refused(words, capsys):
    assert launch(*words("alpha_test"), "--strategy", "fsdp", "--num-devices", 2) == 2
    assert "--strategy: imp-test needs unsharded weights" in capsys.readouterr().err
