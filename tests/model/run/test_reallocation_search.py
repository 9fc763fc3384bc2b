"""A search is put together from a run's options: what is eligible, when, on which batches it is scored."""

from types import SimpleNamespace

import pytest

from configs.runtime.faults import InputFault
from configs.runtime.seeds import draws
from configs.schema.batch_limit import BatchLimit, batches_per_device
from model.run import reallocation_search
from model.run.reallocation_search import budget_of, search_of
from model.site import SiteKey
from tests.support.switching import scene


class Data:
    """The part of `dataset.batches.data_module.TaskData` that a search needs."""

    def __init__(self, batches=103):
        self.batches = batches
        self.asked, self.mixed = [], []

    def batches_of_device(self, devices):
        return batches_per_device(self.batches, devices)

    def scoring_batches(self, limit):
        self.asked.append(limit(self.batches))
        return range(limit(self.batches))

    def scoring_dataloader(self, batches):
        return [{"number": number} for number in batches]

    def mixed_dataloader(self, limit, generator):
        self.mixed.append(generator.random())
        return [{"number": number} for number in range(limit(self.batches))]


@pytest.fixture(scope="module")
def learner():
    return scene()[1]


@pytest.fixture
def make(learner, monkeypatch):
    """Return a function that makes a job, and one that scores; `measured` keeps what was scored."""

    def job(checkpoint=None, **options):
        defaults = {
            "turn_on_percentile": 0.25,
            "budget_params": None,
            "dyrealloc_ags_mode": "off",
            "realloc_N": BatchLimit(ratio=0.25),
            "imp_limit_test_batches": BatchLimit(count=32),
            "importance_test_name": "grad_norm",
            "constant_warmup_epochs": 0,
            "score_init": None,
            "seed": 3,
            "num_devices": 2,
            "nodes": 1,
        }
        return SimpleNamespace(
            options=SimpleNamespace(**{**defaults, **options}),
            assembled=SimpleNamespace(attachments=learner.attachments),
            data=Data(),
            checkpoint=checkpoint,
        )

    return job


@pytest.fixture
def measured(monkeypatch):
    """Return the calls of heuristics: kind, batches, seed of random B."""
    asked = []

    def probe_of(job, trainer, learner, kind, batches, *, keys):
        return SimpleNamespace(batches=batches, keys=keys)

    def measure(kind, probe, seed):
        asked.append((kind, probe.batches, seed))
        return {key: float(len(asked)) for key in probe.keys}

    monkeypatch.setattr(reallocation_search, "probe_of", probe_of)
    monkeypatch.setattr(reallocation_search, "measure", measure)
    return asked


def _score(job, *numbers, epoch=0):
    search = search_of(job, budget_of(job))
    return [search.score(SimpleNamespace(current_epoch=epoch), None, number) for number in numbers]


@pytest.mark.parametrize(
    ("devices", "nodes", "asked", "every"),
    [
        (2, 1, BatchLimit(ratio=0.25), 13),  # ceil(0.25 x ceil(103 / 2))
        (1, 2, BatchLimit(ratio=0.25), 13),
        (1, 1, BatchLimit(ratio=0.25), 26),
        (2, 1, BatchLimit(count=7), 7),
        (2, 1, BatchLimit(count=700), 52),  # the first batch of each epoch
        (2, 1, BatchLimit(ratio=1.0), 52),
        (2, 1, BatchLimit(ratio=0.001), 1),
    ],
)
def test_batches_between_decisions_are_those_of_a_device(make, devices, nodes, asked, every):
    job = make(num_devices=devices, nodes=nodes, realloc_N=asked)
    assert search_of(job, budget_of(job)).every == every


@pytest.mark.parametrize(
    ("asked", "method", "expected"),
    [
        (BatchLimit(count=5), "grad_norm", 5),
        (BatchLimit(count=5000), "grad_norm", 52),
        (BatchLimit(ratio=0.25), "grad_norm", 13),
        (BatchLimit(ratio=0.25), "synflow", 1),
    ],
)
def test_batches_of_a_score_are_counted_alike(make, measured, asked, method, expected):
    job = make(imp_limit_test_batches=asked, importance_test_name=method)
    _score(job, 0)
    assert job.data.asked == [expected]
    assert [batch["number"] for batch in measured[0][1]] == list(range(expected))


def test_the_stored_batches_are_loaded_once(make, measured):
    job = make()
    _score(job, 0, 1, 2)
    assert job.data.asked == [32]
    assert measured[0][1] is measured[2][1]


def test_alpha_test_mixes_again_for_each_decision_from_seed_and_number(make, measured):
    job = make(importance_test_name="alpha_test")
    _score(job, 0, 1)
    assert job.data.asked == []
    assert job.data.mixed == [draws(3, "mixed", number).random() for number in (0, 1)]
    assert search_of(job, budget_of(job)).metadata == {"max_alpha": 10}


@pytest.mark.parametrize(("epoch", "batches"), [(0, 0), (1, 0), (2, 32)])
def test_the_first_epochs_choose_at_random(make, measured, capsys, epoch, batches):
    _score(make(constant_warmup_epochs=2), 0, epoch=epoch)
    ((kind, held, _),) = measured
    assert len(held) == batches
    assert (kind.max_batches == 0) == (epoch < 2)
    said = capsys.readouterr().out
    assert ("all scores are equal" in said) == (epoch == 2)  # the warm-up needs no note


@pytest.mark.parametrize(("word", "seed"), [(None, None), ("as_is", None), ("random_b", 3)])
def test_weights_are_scored_as_they_are_unless_asked(make, measured, word, seed):
    _score(make(importance_test_name="snip", score_init=word), 0)
    assert measured[0][2] == seed


def test_all_modules_are_eligible_whatever_is_off_now(make, learner):
    key = SiteKey(1, "w1")
    learner.attachments[key].enabled = False
    try:
        budget = budget_of(make())
    finally:
        learner.attachments[key].enabled = True
    assert set(budget.sizes) == set(learner.attachments)
    adapter = learner.attachments[key].adapter
    assert budget.sizes[key] == adapter.A.numel() + adapter.B.numel()


def test_modules_without_strength_or_checkpoint_tensors_are_no_candidates(make, learner):
    key, other = SiteKey(1, "w1"), SiteKey(0, "q_proj")
    learner.attachments[key].strength = 0.0
    try:
        assert set(budget_of(make()).sizes) == set(learner.attachments) - {key}
        known = {str(one): True for one in learner.attachments if one != other}
        budget = budget_of(make(checkpoint={"switches": known}))
        assert set(budget.sizes) == set(learner.attachments) - {key, other}
        with pytest.raises(InputFault, match="--lora-config: none of its modules has a rank"):
            budget_of(make(checkpoint={"switches": {}}))
    finally:
        learner.attachments[key].strength = 1.0


def test_a_budget_that_turns_nothing_on_is_refused_at_once(make):
    with pytest.raises(InputFault, match="--turn-on-percentile: a share of 0.01 of 21 modules turns none on"):
        budget_of(make(turn_on_percentile=0.01))
