"""A job's learner is a query; what stays off is frozen by a call of its own."""

import dataclasses
from types import SimpleNamespace

import pytest

from configs.schema.options import Options
from model.run.job import Job
from tests.support.switching import scene

TASK = SimpleNamespace(
    objective="classification", metrics=("accuracy",), classes=("no", "yes"), selection="accuracy"
)


@pytest.fixture
def job():
    """A job of a tiny network whose first module is off."""
    scored, _ = scene()
    first = min(scored.attachments)
    scored.attachments[first].enabled = False
    assembled = SimpleNamespace(network=scored.network, attachments=scored.attachments, head=())
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    return Job(**{**fields, "options": Options(), "task": TASK, "assembled": assembled})


def _trained(job):
    return {
        key
        for key, one in job.assembled.attachments.items()
        if any(p.requires_grad for p in one.adapter.parameters())
    }


def test_asking_for_the_learner_freezes_nothing(job):
    assert len(job.learner(()).attachments) == len(_trained(job)) > 1


def test_modules_that_are_off_are_frozen(job):
    first, *others = sorted(job.assembled.attachments)
    job.freeze_inactive()
    assert _trained(job) == set(others)
    job.assembled.attachments[first].enabled = True
    job.freeze_inactive()
    assert first not in _trained(job)


def test_a_checkpoint_decides_what_trains(job):
    first, second, *_ = sorted(job.assembled.attachments)
    known = dataclasses.replace(job, checkpoint={"switches": {str(first): False, str(second): True}})
    known.freeze_inactive()
    assert _trained(job) == {first, second}
