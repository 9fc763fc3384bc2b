"""Faults know their exit code and word their lines."""

import pytest

from configs.runtime.faults import (
    Fault,
    Findings,
    InputFault,
    NonFiniteFault,
    Stopped,
    SystemFault,
    suggestion,
    unknown,
)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("x"), 1),
        (InputFault("x"), 2),
        (NonFiniteFault("x"), 3),
        (SystemFault("x"), 4),
        (Stopped(15, "x"), 143),
        (Stopped(2, "x"), 130),
    ],
)
def test_every_fault_has_its_exit_code(fault, code):
    assert isinstance(fault, Fault)
    assert fault.exit_code == code
    assert fault.lines == ("x",)


def test_several_lines_are_kept():
    fault = InputFault("--a: one", "--b: two")
    assert fault.lines == ("--a: one", "--b: two")
    assert str(fault) == "--a: one\n--b: two"


@pytest.mark.parametrize(
    ("word", "near"),
    [("mrcp", "; did you mean 'mrpc'?"), ("gradnorm", "; did you mean 'grad_norm'?"), ("zzz", ""), ("", "")],
)
def test_a_near_word_is_suggested(word, near):
    assert suggestion(word, ["mrpc", "rte", "grad_norm"]) == near


def test_an_unknown_name_is_refused_with_the_known_ones():
    expected = "no heuristic 'snipp', one of constant, snip; did you mean 'snip'?"
    assert unknown("heuristic", "snipp", {"snip", "constant"}) == expected
    assert unknown("heuristic", "x", ("b", "a")) == "no heuristic 'x', one of a, b"


def _refuse():
    raise InputFault("--b: two")


def test_findings_report_every_refused_step_at_once():
    findings = Findings()
    findings.lines.append("--a: one")
    assert findings.attempt(_refuse) is None
    number = findings.attempt(lambda: 3)
    for end in (findings.settle, lambda: findings.settled(number)):
        with pytest.raises(InputFault) as caught:
            end()
        assert caught.value.lines == ("--a: one", "--b: two")


def test_findings_without_a_fault_give_what_the_steps_gave():
    findings = Findings()
    number = findings.attempt(lambda: 3)
    findings.settle()
    assert findings.settled(number) == 3
