"""The table [freezing]: its keys and values, and when matrices may be frozen."""

import pytest

from configs.runtime.faults import InputFault
from model.plan.freezing_rule import RunLength, read_freezing

GLUE = {"initial_warmup_epochs": 1, "final_warmup_epochs": 14}
GSM8K = {"schedule": "quadratic", "initial_warmup_ratio": 0.3, "final_warmup_ratio": 0.3}


def _rule(**keys):
    return read_freezing(keys, "[freezing]")


def test_the_schedule_of_glue():
    rule, length = _rule(**GLUE), RunLength(203, 20)  # an epoch counts as 10 steps
    assert rule.limits(length) == (10, 63)
    for step in range(203):
        x = (step - 10) / 53
        expected = 1.0 if step <= 10 else 0.0 if step > 63 else (1 - x) ** 3
        assert rule.share(step, length) == pytest.approx(expected)
        assert rule.decides(step, length) == (step > 63 or (step > 10 and step % 10 == 0))


def test_the_schedule_of_gsm8k():
    rule, length = _rule(**GSM8K), RunLength(100, 3)
    for step in range(100):
        x = (step - 30) / 40
        expected = 1.0 if step <= 30 else 0.0 if step > 70 else 1 - x**2
        assert rule.share(step, length) == pytest.approx(expected)


@pytest.mark.parametrize("keys", [GLUE, GSM8K, {**GLUE, "initial_share": 0.9, "final_share": 0.2}])
@pytest.mark.parametrize("length", [RunLength(200, 20), RunLength(77, 20), RunLength(1000, 20)])
def test_the_share_never_rises(keys, length):
    rule = _rule(**keys)
    shares = [rule.share(step, length) for step in range(length.steps)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (keys.get("initial_share", 1.0), keys.get("final_share", 0.0))


def test_with_a_warm_up_of_the_whole_run_nothing_is_decided():
    rule, length = _rule(initial_warmup_ratio=1, final_warmup_ratio=0), RunLength(50, 2)
    assert not any(rule.decides(step, length) for step in range(50))


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({"after_epochs": 3}, 30),
        ({"after_epochs": 20}, 200),
        ({"after_ratio": 0.25}, 51),
        ({"after_ratio": 0}, 0),
    ],
)
def test_all_at_once(keys, first):
    rule, length = _rule(rule="epoch", **keys), RunLength(203, 20)
    decided = [step for step in range(203) if rule.decides(step, length)]
    assert decided[0] == first
    assert [rule.share(step, length) for step in (max(0, first - 1), first)][1] == 0.0
    assert rule.share(first - 1, length) == 1.0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "initial_warmup_epochs, initial_warmup_ratio: exactly one of them is required"),
        ({**GLUE, "final_warmup_ratio": 0.5}, "final_warmup_epochs, final_warmup_ratio: exactly one of them"),
        ({**GLUE, "windw_steps": 5}, "unknown key 'windw_steps'; did you mean 'window_steps'"),
        ({**GLUE, "window_steps": 0}, "window_steps: must be a whole number of at least 1, got 0"),
        ({**GLUE, "schedule": "cubik"}, "schedule: .*did you mean 'cubic'"),
        ({**GLUE, "pool": "all"}, "pool: "),
        ({**GLUE, "initial_share": 0.2, "final_share": 0.3}, "final_share: is above initial_share, 0.2"),
        ({**GLUE, "after_epochs": 2}, "unknown key 'after_epochs'"),
        ({"rule": "scores", **GLUE}, "rule: no rule 'scores', one of epoch, score; did you mean 'score'"),
        ({"rule": "epoch"}, "after_epochs, after_ratio: exactly one of them is required"),
        ({"rule": "epoch", "after_epochs": 0.5}, "after_epochs: "),
        ({"rule": "epoch", "after_ratio": 1.0}, "after_ratio: "),
        ({"rule": "epoch", "after_epochs": 1, "schedule": "cubic"}, "unknown key 'schedule'"),
    ],
)
def test_wrong_keys_are_refused(keys, words):
    with pytest.raises(InputFault, match=r"\[freezing\]: " + words):
        _rule(**keys)


def test_what_is_no_table_is_refused():
    with pytest.raises(InputFault, match="must be a table"):
        read_freezing("score", "[freezing]")


@pytest.mark.parametrize(
    ("keys", "epochs", "words"),
    [
        (GLUE, 15, None),
        (GLUE, 14, "initial_warmup and final_warmup take 15 epochs, --max-epochs is 14"),
        ({"initial_warmup_epochs": 2, "final_warmup_ratio": 0.6}, 5, None),
        ({"initial_warmup_epochs": 2.5, "final_warmup_ratio": 0.6}, 5, "take 5.5 epochs"),
        ({"rule": "epoch", "after_epochs": 3}, 3, None),
        ({"rule": "epoch", "after_epochs": 4}, 3, "after_epochs: 4, --max-epochs is 3"),
        ({"rule": "epoch", "after_ratio": 0.9}, 1, None),
    ],
)
def test_it_must_fit_the_run(keys, epochs, words):
    rule = _rule(**keys)
    if words is None:
        rule.check(epochs)
    else:
        with pytest.raises(ValueError, match=words):
            rule.check(epochs)


def test_its_description():
    assert _rule(**GLUE).description() == (
        "by score, cubic, everything is trained for 1 epochs, only vectors for the last 14 epochs"
    )
    assert (
        _rule(**GSM8K)
        .description()
        .startswith("by score, quadratic, everything is trained for 0.3 of the run")
    )
    assert _rule(rule="epoch", after_epochs=2).description() == "all matrices after epoch 2"
    assert _rule(rule="epoch", after_ratio=0.5).description() == "all matrices after 0.5 of the run"
