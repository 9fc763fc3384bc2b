"""TOML that is written reads back as what was meant."""

import dataclasses

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.command_line.cli import parse
from configs.command_line.config_file import config_text
from configs.schema.batch_limit import BatchLimit
from configs.schema.lookup import option_specs
from configs.schema.number_values import Batches, Real, Whole
from configs.schema.values import Choice, Switch
from configs.toml.writer import toml_text

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALAR = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), TEXT
)
TREE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@QUIET
@given(st.dictionaries(TEXT, TREE, max_size=4))
def test_tables_round_trip(table):
    assert tomli.loads(toml_text(table)) == table


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, object(), "\ud800"])
def test_what_toml_cannot_represent_is_refused(value):
    with pytest.raises(ValueError):
        toml_text({"x": value})


def _values(spec):
    kind = spec.kind
    if isinstance(kind, Whole):
        return st.integers(-50 if kind.low is None else kind.low, kind.high)
    if isinstance(kind, Real):
        return st.floats(
            kind.low, kind.high, exclude_min=kind.low_open, exclude_max=kind.high_open, allow_infinity=False
        ).filter(lambda number: number == number)
    if isinstance(kind, Choice):
        return st.sampled_from(sorted(kind.allowed))
    if isinstance(kind, Batches):
        counts = st.builds(BatchLimit, count=st.integers(1, 2**62))
        return counts | st.builds(BatchLimit, ratio=st.floats(0, 1, exclude_min=True))
    return st.booleans() if isinstance(kind, Switch) else None


_BOUND = ("load_type", "resume_training", "dyrealloc_ags_mode", "auto_requeue", "strategy", "base_dtype")
"""Options that need others, a package, or a job of SLURM."""
DRAWN = {
    name: _values(spec)
    for name, spec in option_specs().items()
    if _values(spec) is not None and name not in _BOUND
}


def _words(values):
    for name, value in values.items():
        spec = option_specs()[name]
        if spec.is_switch:
            yield spec.flag if value else f"--no-{spec.flag[2:]}"
        else:
            yield f"{spec.flag}={value!r}" if isinstance(value, float) else f"{spec.flag}={value}"


@QUIET
@given(st.fixed_dictionaries({}, optional=DRAWN), st.dictionaries(TEXT, TREE, max_size=2))
def test_the_effective_configuration_feeds_back(bound, here, values, data):
    (here / "data.toml").write_text(toml_text({"data": data}), newline="")
    first = bound(*_words(values), "--config", "data.toml", "--project", "x")
    (here / "again.toml").write_text(config_text(first), newline="")
    again = parse(["train", "--config", "again.toml"])
    assert again.options == dataclasses.replace(first.options, project=None)
    assert again.tables == first.tables
    for name, value in values.items():
        assert getattr(first.options, name) == value


@QUIET
@given(st.fixed_dictionaries({}, optional=DRAWN))
def test_flags_and_toml_agree(bound, here, values):
    plain = {
        name: (value.count or value.ratio) if isinstance(value, BatchLimit) else value
        for name, value in values.items()
    }
    (here / "same.toml").write_text(toml_text(plain), newline="")
    assert bound("--config", "same.toml").options == bound(*_words(values)).options


def test_config_text_names_where_values_come_from(bound, here):
    (here / "a.toml").write_text(
        'seed = 3\nproject = "mine"\n[data]\nfiles = ["a"]\n[[data.mix]]\nname = "p"\n'
    )
    text = config_text(bound("--config", "a.toml", "--learning-rate", "1e-05", "--realloc-N", "1.0"))
    lines = text.splitlines()
    assert f"seed = 3  # {here / 'a.toml'}" in lines
    assert "learning_rate = 1e-05  # command line" in lines
    assert "realloc_N = 1.0  # command line" in lines
    assert "imp_limit_test_batches = 32  # default" in lines
    assert f'project_dir = "{here}/outputs"  # default' in lines
    assert not [line for line in lines if line.startswith(("project =", "config", "pretrained"))]
    assert text.endswith('\n\n[data]\nfiles = ["a"]\n\n[[data.mix]]\nname = "p"\n')


def test_a_load_given_over_the_effective_configuration_turns_pretrained_on(bound, here):
    (here / "a.toml").write_text(config_text(bound()))
    assert parse(["train", "--config", "a.toml", "--load", "facebook/opt-125m"]).options.pretrained
