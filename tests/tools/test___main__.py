"""An installation keeps the program in one folder and runs from any directory; tools have names."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from configs.runtime.version import program_version
from tests.support.runs import ROOT
from tools.__main__ import main

FOLDERS = ("configs", "dataset", "model", "tools")
FILES = ("main.py", "setup.py", "pyproject.toml", "python-requirements.txt", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the project's wheel and unpack it; nothing is fetched."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(place)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("lora_research-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def _command(site, directory, *words):
    program = "import sys; from lora_research.tools.__main__ import command; sys.exit(command())"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=directory,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installation_adds_one_folder_with_every_file(site):
    added = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert added == {"lora_research"}
    kept = {path.relative_to(site / "lora_research") for path in (site / "lora_research").rglob("*.*")}
    wanted = {path.relative_to(ROOT) for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
    wanted |= {path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.toml")}
    assert {path for path in kept if path.suffix in (".py", ".toml")} == wanted | {Path("main.py")}


def test_the_command_runs_from_any_directory(site, tmp_path):
    done = _command(site, tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"lora-research {program_version()}\n")
    done = _command(site, tmp_path, "train", "--lr", "1")
    assert done.returncode == 2
    assert "--lr: unknown option; here it is --learning-rate" in done.stderr
    done = _command(site, tmp_path, "tools", "count_params", "--help")
    assert (done.returncode, "--lora-config" in done.stdout) == (0, True)
    assert list(tmp_path.iterdir()) == []


def test_tools_are_listed_and_an_unknown_one_is_refused(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    known = sorted(path.stem for path in (ROOT / "tools").glob("[!_]*.py"))
    assert [line.split()[0] for line in listed] == known
    assert main(["merg"]) == 2
    assert "no tool 'merg'" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lora-research {program_version()}\n"
