"""Tools read their words like the program: all faults at once, nothing guessed."""

import pytest

from configs.command_line.cli import HelpRequested
from configs.command_line.tool_flags import Flag, Text, ended, read_words
from configs.runtime.faults import InputFault
from configs.schema.number_values import Real, Whole
from configs.schema.values import PathText, Switch

FLAGS = (
    Flag("FILE", PathText(), "A file.", required=True),
    Flag("--count", Whole(1), "How many.", default=2),
    Flag("--share", Real(0, 1), "How much."),
    Flag("--seed", Whole(0), "Of the draws.", default=0),
    Flag("--prompt", Text(), "What is asked."),
    Flag("--json", Switch(), "As JSON.", default=False),
)


def _read(*words):
    return read_words("tools.any", "Does a thing.", FLAGS, words)


def test_values_defaults_and_what_was_given(tmp_path):
    found = _read(str(tmp_path), "--share=0.5", "--prompt", "a\nb", "--json")
    assert (found.file, found.count, found.share, found.prompt, found.json) == (
        tmp_path,
        2,
        0.5,
        "a\nb",
        True,
    )
    assert found.given == {"FILE", "--share", "--prompt", "--json"}


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], ["FILE: required"]),
        (["x", "y"], ["y: unexpected argument"]),
        (["x", "--count", "-4"], ["--count: must be a whole number of at least 1, got -4"]),
        (["x", "--share", "-1e-3"], ["--share: must be a number in [0, 1], got -1e-3"]),
        (["x", "--coun", "3"], ["--coun: unknown option; did you mean '--count'?"]),
        (["x", "--share", "--json"], ["--share: needs a value, a number in [0, 1]"]),
        (["x", "--json=1"], ["--json: takes no value, got 1"]),
        (["x", "--json", "--json"], ["--json: given twice"]),
        (["x", "--prompt", " "], ['--prompt: must be a text that is not blank, got " "']),
        (["--count", "0", "--wrong"], ["--count: must", "--wrong: unknown option", "FILE: required"]),
    ],
)
def test_every_fault_is_reported_together(words, lines):
    with pytest.raises(InputFault) as refused:
        _read(*words)
    assert len(refused.value.lines) == len(lines)
    assert all(told.startswith(line) for told, line in zip(refused.value.lines, lines))


def test_help_names_every_flag(capsys):
    with pytest.raises(HelpRequested) as request:
        _read("--help")
    assert ended(request.value) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: python -m tools.any FILE [options]\n")
    assert "--seed  Of the draws. (a whole number of at least 0; default: 0)" in shown
    assert all(flag.name in shown and flag.meaning in shown for flag in FLAGS)


def test_faults_end_with_their_code(capsys):
    assert ended(InputFault("--a: no", "--b: no")) == 2
    assert capsys.readouterr().err == "error: --a: no\nerror: --b: no\n"
