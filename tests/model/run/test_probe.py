"""A heuristic sees the modules it shall score, its own options, and the metric of the task."""

from types import SimpleNamespace

import pytest
import torch

from configs.runtime import kinds
from configs.schema.batch_limit import BatchLimit
from model.run.probe import Hooks, batches_read, probe_of, random_b_seed
from model.site import SiteKey
from tests.support.switching import scene

CPU = torch.device("cpu")


def _kind(name):
    return kinds.load(kinds.HEURISTICS, name)


def _job(objective="classification", selection="f1", maximise=True, **options):
    defaults = {"metric_red_tolerance": 0.3, "synflow_objective": "loss", "seed": 5, "score_init": None}
    return SimpleNamespace(
        options=SimpleNamespace(**{**defaults, **options}),
        task=SimpleNamespace(objective=objective, selection=selection, maximise=maximise),
    )


def _trainer(sums):
    strategy = SimpleNamespace(
        batch_to_device=lambda batch: {**batch, "moved": True},
        reduce=lambda value, reduce_op: sums.append(reduce_op) or value * 2,
    )
    return SimpleNamespace(strategy=strategy, precision_plugin=SimpleNamespace(forward_context=torch.no_grad))


@pytest.fixture(scope="module")
def learner():
    return scene()[1]


def test_only_chosen_modules_that_are_on_are_scored(learner):
    first, second, *_ = keys = sorted(learner.attachments)
    learner.attachments[first].enabled = False
    try:
        whole = probe_of(_job(), _trainer([]), learner, _kind("snip"), [])
        assert sorted(whole.attachments) == keys[1:]
        some = probe_of(_job(), _trainer([]), learner, _kind("snip"), [], keys=[first, second])
        assert list(some.attachments) == [second]
    finally:
        learner.attachments[first].enabled = True


@pytest.mark.parametrize(
    ("facts", "metric", "maximise"),
    [
        ({}, "f1", True),
        ({"selection": "loss", "maximise": False}, "loss", False),
        ({"objective": "language_modeling", "selection": "loss"}, "perplexity", False),
    ],
)
def test_the_metric_is_the_tasks_own_or_perplexity(learner, facts, metric, maximise):
    probe = probe_of(_job(**facts), _trainer([]), learner, _kind("alpha_test"), [])
    assert (probe.metric, probe.maximise) == (metric, maximise)


def test_options_batches_and_sums_are_those_of_the_run(learner):
    sums = []
    batches = [{"input_ids": 1}, {"input_ids": 2}]
    alpha = probe_of(_job(), _trainer(sums), learner, _kind("alpha_test"), batches)
    assert alpha.options.metric_red_tolerance == 0.3
    assert probe_of(_job(), _trainer(sums), learner, _kind("synflow"), []).options.synflow_objective == "loss"
    assert alpha.batches == [{"input_ids": 1, "moved": True}, {"input_ids": 2, "moved": True}]
    assert alpha.reduce(3) == 6
    assert sums == ["sum"]
    with alpha.precision():
        assert not torch.is_grad_enabled()


def test_hooks_reach_the_heuristic(learner):
    found, noted = {}, {}
    hooks = Hooks({SiteKey(0, "w1"): 3.0}, found.__setitem__, noted.__setitem__)
    probe = probe_of(_job(), _trainer([]), learner, _kind("alpha_test"), [], hooks=hooks)
    probe.found(SiteKey(1, "w1"), 2.0)
    probe.note("metric", "f1")
    assert probe.known == {SiteKey(0, "w1"): 3.0}
    assert (found, noted) == ({SiteKey(1, "w1"): 2.0}, {"metric": "f1"})
    plain = probe_of(_job(), _trainer([]), learner, _kind("alpha_test"), [])
    assert plain.known == {}
    plain.found(SiteKey(1, "w1"), 2.0)


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("grad_norm", BatchLimit(count=3), 3),
        ("grad_norm", BatchLimit(count=30), 10),
        ("grad_norm", BatchLimit(ratio=0.25), 3),
        ("synflow", BatchLimit(count=3), 1),
        ("constant", BatchLimit(count=3), 0),
    ],
)
def test_a_heuristic_reads_no_more_batches_than_it_needs(name, asked, expected):
    assert batches_read(_job(imp_limit_test_batches=asked), _kind(name))(10) == expected


@pytest.mark.parametrize("name", kinds.names(kinds.HEURISTICS))
def test_a_static_test_draws_b_where_scores_vanish_without(name):
    drawn = {
        word: random_b_seed(_job(score_init=word).options, _kind(name))
        for word in (None, "as_is", "random_b")
    }
    assert drawn == {None: 5 if name in ("snip", "synflow") else None, "as_is": None, "random_b": 5}
