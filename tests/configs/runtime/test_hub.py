"""The hub is asked once, briefly, and its silence has a reason."""

import logging

import pytest
from huggingface_hub import constants

from configs.runtime import hub


class Session:
    def __init__(self, error=None):
        self.asked, self.error = [], error

    def head(self, url, timeout):
        self.asked.append((url, timeout))
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    hub.silence.cache_clear()
    hub.note_cached.cache_clear()
    yield
    hub.silence.cache_clear()


def _session(monkeypatch, error=None):
    session = Session(error)
    monkeypatch.setattr(hub, "get_session", lambda: session)
    return session


def test_a_hub_that_answers_is_not_silent(monkeypatch):
    session = _session(monkeypatch)
    assert hub.silence() is None
    assert session.asked == [("https://hub.invalid", 10)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no route\nto host"), "no route"), (TimeoutError(), "TimeoutError")],
)
def test_it_is_asked_once_and_the_reason_is_one_line(monkeypatch, error, reason):
    session = _session(monkeypatch, error)
    assert hub.silence() == hub.silence() == f"https://hub.invalid: {reason}"
    assert len(session.asked) == 1


def test_offline_it_is_not_asked(monkeypatch):
    session = _session(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.silence() == "HF_HUB_OFFLINE is set"
    assert not session.asked


def test_messages_come_once(caplog):
    library = logging.getLogger("huggingface_hub")
    library.addHandler(logging.StreamHandler())
    hub.route_messages()
    assert not library.handlers
    hub.note_cached("it sleeps")
    hub.note_cached("it sleeps")
    assert [record.getMessage() for record in caplog.records] == [
        "the hub is not reached (it sleeps); its cache is used"
    ]
