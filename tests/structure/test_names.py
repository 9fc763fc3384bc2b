"""Modules, names and paths that the docs, docstrings and comments quote are there."""

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.tree import ROOT, files, module_name

CODE = [ROOT / "main.py", *files("configs", "dataset", "model", "tools", "benchmarks", "tests")]
MODULES = {module_name(path): ast.parse(path.read_text()).body for path in CODE}
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*PAGES, *CODE]
    if not path.is_relative_to(ROOT / "tests")
}

_TOPS = "configs|dataset|model|tools|benchmarks|tests|docs"
_DOTTED = re.compile(rf"`((?:{_TOPS}|main)(?:\.\w+)+)(?:\([^`]*\))?`")
_PATH = re.compile(rf"(?<![\w/.~-])((?:{_TOPS})(?:/[\w.-]+)+)(?![\w<*{{])")
_CLASS = re.compile(r"`([A-Z][A-Za-z]*[a-z][A-Za-z]*)(?:\.\w+|\([^`]*\))?`")
_HOST = ("model.layers.", "model.safetensors")
"""What begins like a name of ours, but is a module or a file of a network."""
_MADE = ("benchmarks/results", "configs/chosen.toml")
"""Files that a command makes, or that a reader is shown making."""
_OTHERS = {"LoraConfig", "ModulesToSaveWrapper"}
"""Classes of libraries that are spoken of and not imported."""


def _defined(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield every name that statements define, with the statements inside it."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, node.body
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from ((n.id, []) for n in ast.walk(target) if isinstance(n, ast.Name))


def _is_there(name: str) -> bool:
    """Return whether a dotted name is a module, or a name in one, or a file of the root."""
    parts = name.split(".")
    known = next((k for k in range(len(parts), 0, -1) if ".".join(parts[:k]) in MODULES), 0)
    if not known or (ROOT / name).exists():
        return (ROOT / name).exists()
    body = MODULES[".".join(parts[:known])]
    for part in parts[known:]:
        found = dict(_defined(body))
        if part not in found:
            return False
        body = found[part]
    return True


def _violations(check: Callable[[str], set[str]]) -> dict[str, set[str]]:
    """Return what a check finds in every text, by file."""
    found = {path: check(text) for path, text in TEXTS.items()}
    return {path: names for path, names in found.items() if names}


def test_dotted_names_resolve():
    def missing(text: str) -> set[str]:
        names = {name for name in _DOTTED.findall(text) if not name.startswith(_HOST)}
        return {name for name in names if not _is_there(name)}

    assert _violations(missing) == {}


def test_paths_exist():
    def missing(text: str) -> set[str]:
        paths = {name.rstrip(".") for name in _PATH.findall(text) if not name.startswith(_MADE)}
        return {path for path in paths if not (ROOT / path).exists()}

    assert _violations(missing) == {}


def _known() -> set[str]:
    """Return every class and constant of ours, and every name that our code imports."""
    nodes = [node for body in MODULES.values() for top in body for node in ast.walk(top)]
    imported = {a.asname or a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    assigned = {name for body in MODULES.values() for name, _ in _defined(body)}
    return imported | assigned | {node.name for node in nodes if isinstance(node, ast.ClassDef)} | _OTHERS


def test_classes_are_defined_or_imported():
    known = _known()
    assert _violations(lambda text: set(_CLASS.findall(text)) - known) == {}


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("model.site", True),
        ("model.site.SiteKey", True),
        ("model.site.SiteKey.layer", True),
        ("model.site.SiteKey.depth", False),
        ("model.sites", False),
        ("main.main", True),
    ],
)
def test_a_name_that_does_not_exist_is_found(name, there):
    assert _is_there(name) == there


def test_quoted_names_are_found():
    text = "see `model.sites.Key`, `Keyed` and tests/nowhere/test_it.py."
    assert _DOTTED.findall(text) == ["model.sites.Key"]
    assert _CLASS.findall(text) == ["Keyed"]
    assert [name.rstrip(".") for name in _PATH.findall(text)] == ["tests/nowhere/test_it.py"]
