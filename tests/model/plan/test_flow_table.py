"""The table `[flow]`: what fits the number of sets, and what is refused with its key."""

import pytest

from configs.runtime.faults import InputFault
from model.plan.flow_table import FlowSettings, flow_settings


def test_everything_has_a_default():
    assert flow_settings({}, "[flow]", 2) == FlowSettings("gate", 1.0, "last")


def test_fixed_weights():
    found = flow_settings({"combine": "constant", "weights": [0.5, 1, -2.0]}, "[flow]", 3)
    assert found.weights == (0.5, 1.0, -2.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"combine": "gates"}, "combine: "),
        ({"combine": "constant"}, 'weights: combine = "constant" needs weights'),
        ({"weights": [1.0, 2.0]}, 'weights: combine = "gate" does not use weights'),
        ({"combine": "constant", "weights": [1.0]}, "weights: 1 of them for 2 sets"),
        ({"names": ["a"]}, "names: 1 of them for 2 sets"),
        ({"names": ["a", "a"]}, "names: each set needs a name of its own"),
        ({"temperature": 0}, "temperature: "),
        ({"initial": "first"}, "initial: "),
        ({"foo": 1}, "unknown key 'foo'"),
    ],
)
def test_what_does_not_fit_is_refused(table, message):
    with pytest.raises(InputFault) as refusal:
        flow_settings(table, "run.toml: [flow]", 2)
    assert refusal.value.lines[0].startswith("run.toml: [flow]")
    assert message in str(refusal.value)
