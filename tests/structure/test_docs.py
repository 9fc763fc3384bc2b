"""The pages agree with the code: links, option names, commands, TOML examples, no paths of one machine."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from configs.command_line.cli import parse
from configs.command_line.config_file import read_options
from configs.command_line.flags import read_command_line
from configs.runtime import kinds
from configs.schema.lookup import flags, option_specs
from configs.toml.binding import bind
from configs.toml.reader import Document
from dataset.mixture.bind_parts import bind_parts
from dataset.task import TaskKind
from model.plan.lora_toml import read_plan
from model.plan.shortcut_toml import read_shortcuts
from tests.support.tree import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

PAPERS = ("2406.14956", "2404.19245", "2403.13269", "2402.11455")
"""HeteroLoRA, HydraLoRA, AFLoRA, LoRA-Flow."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_MACHINE = re.compile(r"(?<![\w.~$}/])/(work|tmp|root|home|mnt|srv|Users|private)\b")
_EXAMPLES = [
    (page, text) for page in PAGES for word, text in _FENCE.findall(page.read_text()) if word == "toml"
]
every_example = pytest.mark.parametrize(
    ("page", "text"), _EXAMPLES, ids=[f"{page.stem}-{i}" for i, (page, _) in enumerate(_EXAMPLES)]
)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "", _FENCE.sub("", text))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(text: str) -> list[list[str]]:
    """Return the words after `python -m main` of every whole command in a block."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    shown = (line.strip() for line in lines if line.startswith("    ") or line.startswith("python"))
    whole = (
        line for line in shown if line.startswith("python -m main ") and "…" not in line and "[" not in line
    )
    return [shlex.split(line, comments=True)[3:] for line in whole]


@every_page
def test_every_relative_link_resolves(page):
    for link in _LINK.findall(_without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@every_page
def test_no_page_names_a_path_of_one_machine(page):
    assert _MACHINE.search(page.read_text()) is None


@every_page
def test_every_command_is_one_the_program_reads(page):
    for words in _commands(page.read_text()):
        assert read_command_line(words).layer.faults == [], words


def test_commands_are_found():
    assert sum(len(_commands(page.read_text())) for page in PAGES) > 10


@every_page
def test_every_flag_is_one_there_is(page):
    text = page.read_text()
    modules = set(re.findall(r"python -m ((?:tools|benchmarks)\.\w+)", text))
    sources = [(ROOT / module.replace(".", "/")).with_suffix(".py").read_text() for module in modules]
    named = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text))
    others = {
        "--help",
        "--max-ep",
        "--flag",
        "--no-",
        "--random-source",
        "--nproc_per_node",
        "--index-url",
        "--version",
    }  # GNU shuf, torchrun, pip
    assert {
        flag for flag in named - set(flags()) - others if not any(flag in one for one in sources)
    } == set()


def test_every_option_is_on_the_page_of_the_command_line():
    text = (DOCS / "command-line.md").read_text()
    assert [spec.flag for spec in option_specs().values() if f"`{spec.flag}`" not in text] == []
    aliases = [f"--{alias}" for spec in option_specs().values() for alias in spec.option.flags]
    assert [alias for alias in aliases if f"`{alias}`" not in text] == []


@pytest.mark.parametrize(("registry", "page"), [(kinds.FAMILIES, "networks.md"), (kinds.TASKS, "data.md")])
def test_every_kind_has_its_row(registry, page):
    text = (DOCS / page).read_text()
    assert [kind for kind in kinds.names(registry) if f"\n| {kind} |" not in text] == []


@every_example
def test_every_toml_example_is_right(page, text, tmp_path):
    table = tomllib.loads(text)
    if "default" in table:
        path = tmp_path / "plan.toml"
        path.write_text(text)
        read = read_shortcuts if "shortcut_alpha" in table["default"] else read_plan
        assert read(path).notes == ()
        return
    layer = read_options(Document(page, table, text), "page")
    assert layer.faults == []
    name = table.get("dataset", "local")
    if name == "mix":
        path = tmp_path / "run.toml"
        path.write_text(text)
        (tmp_path / "lora.toml").write_text("")
        words = ["train", "llama_lora", "--config", str(path), "--lora-config", str(tmp_path / "lora.toml")]
        assert len(bind_parts(parse(words))[1]) > 1
        return
    kind: TaskKind = kinds.load(kinds.TASKS, name)
    kind.build(bind(kind.options, table.get("data", {"train": "a.csv"}), page.name))


def test_the_table_lists_what_is_refused():
    section = (DOCS / "index.md").read_text().partition("## Not built yet")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)", section, re.MULTILINE)
    assert set(rows) == {"--compile", "train"}


def test_every_page_is_on_the_map():
    linked = set(_LINK.findall((DOCS / "index.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


def test_the_citation_names_this_version_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", project["version"])
    assert all({"type", "title", "authors"} <= set(reference) for reference in citation["references"])
    papers = {one["value"] for reference in citation["references"] for one in reference["identifiers"]}
    assert papers == {f"arXiv:{number}" for number in PAPERS}
