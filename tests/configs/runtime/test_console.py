"""Lines come out escaped, and on the right ranks only."""

import logging
import subprocess
import sys

import pytest

from configs.runtime import console
from configs.runtime.faults import InputFault
from tests.support.tree import ROOT


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_control_characters_are_escaped(capsys):
    console.say("a\x1b[31m\nb\u202ec é")
    console.fault("x\ny\udc80")
    captured = capsys.readouterr()
    assert captured.out == "a\\x1b[31m\nb\\u202ec é\n"
    assert captured.err == "error: x\\ny\\udc80\n"


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_other_ranks_are_silent_but_name_their_faults(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "1")
    console.say("hello")
    console.table("t", ["a"], [["b"]])
    console.fault("lost")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: rank 1: lost\n")


def test_the_global_rank_takes_precedence_over_the_local_one(monkeypatch):
    monkeypatch.setenv("RANK", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert console.rank() == 8


def test_tables_are_aligned(capsys):
    console.table("sizes", ["name", "count"], [["a", 10], ["long", 2]])
    assert capsys.readouterr().out == "sizes\nname  count\na     10\nlong  2\n"
    console.table("none", ["name"], [])
    assert capsys.readouterr().out == "none\nname\n"


def test_tables_are_drawn_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.table("sizes", ["name"], [["[bold]a"]])
    assert "[bold]a" in capsys.readouterr().out


@pytest.fixture
def root(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    return root


@pytest.mark.usefixtures("root")
def test_log_lines_are_single_lines(capsys):
    console.configure_logging("warning")
    logging.getLogger("mine").warning("a\nb")
    logging.getLogger("mine").info("not shown")
    assert capsys.readouterr().err == "WARNING mine: a\\nb\n"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("level", "shown"), [("info", ""), ("debug", "INFO httpx: GET /\n")])
def test_libraries_are_heard_from_warnings_on(level, shown, capsys):
    console.configure_logging(level)
    logging.getLogger("httpx").info("GET /")
    assert capsys.readouterr().err == shown
    logging.getLogger("httpx").warning("slow")
    logging.getLogger("model.run.fit").info("begins")
    logging.getLogger("matplotlib.font_manager").warning("building the font cache")
    assert capsys.readouterr().err == "WARNING httpx: slow\nINFO model.run.fit: begins\n"


def test_a_reader_that_has_gone_does_not_stop_the_program():
    program = "from configs.runtime import console\nfor n in range(20000): console.say(str(n))\nprint('x')\n"
    program += "import sys; sys.stderr.write('to the end')"
    done = subprocess.run(
        f'{sys.executable} -c "{program}" | head -1',
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "to the end")


def test_of_very_many_faults_the_first_are_printed_and_the_others_counted(capsys):
    assert console.report(InputFault(*(f"fault {n}" for n in range(2100)))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (lines[0], lines[99], lines[100]) == ("error: fault 0", "error: fault 99", "error: 2,000 more")
    assert len(lines) == 101


CLOSED = """
import os, sys
from configs.runtime import console
console.prepare_process()
first = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
console.say("said")
console.fault("wrong")
os.write(first, b"%d" % first)
"""


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-"])
def test_a_stream_that_was_closed_takes_no_files_number(tmp_path, closed):
    """As under cron, or after `nohup ... >&-`; a file with number 1 would get what libraries print."""
    (tmp_path / "closed.py").write_text(CLOSED)
    command = f"{sys.executable} closed.py out {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "out").read_text()) > 2
    assert (done.stdout == "said\n") == (">&-" not in closed.replace("2>&-", ""))
    assert (done.stderr == "error: wrong\n") == ("2>&-" not in closed)
