"""The floor plan holds: imports point one way, kinds keep apart, heavy libraries come late."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from configs.runtime import kinds
from tests.support.tree import (
    MODULES,
    PACKAGES,
    ROOT,
    TREES,
    files,
    functions,
    imports,
    kind_folder,
    module_name,
    violations,
    without_docstring,
)

MOST_ENTRIES = 14
FLOORS = {
    "configs.runtime": 0.0,
    "configs.schema": 0.1,
    "configs.toml": 0.2,
    "configs.runs": 0.3,
    "configs.command_line": 0.4,
    "dataset.task": 1,
    "dataset.rows": 2,
    "dataset.suites": 3,
    "dataset.encoding": 4,
    "dataset.tasks": 4,
    "dataset.mixture": 5,
    "dataset.batches": 6,
    "dataset.clustering": 6,
    "model.site": 1.0,
    "model.tensors": 1.1,
    "model.figures": 1.1,
    "model.network": 1.2,
    "model.plan": 2,
    "model.adapters": 3,
    "model.injection": 4,
    "model.training": 5,
    "model.exchange": 6,
    "model.freezing": 6,
    "model.search": 6,
    "model.assembly": 7,
    "model.run": 8,
    "main": 9,
    "tools": 9,
}
"""Folder -> floor. A module may import from its own folder's floor or below, so a new file needs no entry."""

HEAVY = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "numpy", "matplotlib", "rich")
LATE = ("dataset.rows.hub", "dataset.rows.formats.parquet", "dataset.suites.rouge")
"""Imported only when a run needs them."""
IMPORT_IN_FUNCTIONS = (
    "main.py",
    "configs/runtime/kinds.py",
    "configs/runtime/console.py",
    "model/figures/canvas.py",
    "model/figures/heat_maps.py",
    "model/assembly/router_maps.py",
)


def _room(name: str) -> str:
    """Return the folder of `FLOORS` that a module belongs to."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in FLOORS)


def _folder(name: str) -> str:
    """Return the folder of a module; a file next to folders counts as one."""
    return name if name in ("main", "dataset.task", "model.site") else name.rsplit(".", 1)[0]


def test_imports_point_to_the_same_floor_or_below():
    def above(path: Path) -> list[str]:
        mine = FLOORS[_room(module_name(path))]
        targets = [name for _, name in imports(TREES[path]) if name in MODULES]
        return [name for name in targets if FLOORS[_room(name)] > mine]

    packages = ("configs", "dataset", "model")  # whose own docstrings import nothing
    assert violations(lambda path: module_name(path) not in packages and above(path)) == {}


def test_every_folder_has_its_floor_and_every_floor_its_folder():
    rooms = {_room(name) for name, path in MODULES.items() if path.name != "__init__.py"}
    assert rooms == set(FLOORS)


def test_folders_import_each_other_one_way():
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        targets = {_folder(target) for _, target in imports(TREES[path]) if target in MODULES}
        graph.setdefault(_folder(name), set()).update(targets - {_folder(name)})
    _no_circle(graph)


def test_folders_have_few_entries():
    def entries(folder: Path) -> int:
        return len([e for e in folder.iterdir() if not e.name.startswith("__")])

    folders = {path.parent for path in files(*PACKAGES)} - {ROOT / "dataset" / "tasks"}
    assert {str(f.relative_to(ROOT)): entries(f) for f in folders if entries(f) > MOST_ENTRIES} == {}


def test_dataset_and_model_meet_in_main_and_in_tools_alone():
    def meets(path: Path) -> bool:
        seen = {name.split(".")[0] for _, name in imports(TREES[path])} | {module_name(path).split(".")[0]}
        return {"dataset", "model"} <= seen

    assert {path for path in violations(meets) if not path.startswith("tools/")} == {"main.py"}


def test_kinds_are_reached_through_the_registry_alone():
    assert violations(lambda path: [n for _, n in imports(TREES[path]) if kind_folder(n)]) == {}
    by_name = violations(lambda path: [n for _, n in imports(TREES[path]) if n == "importlib"])
    # `tools.__main__` runs before the program is on the path of an installation.
    assert set(by_name) == {"configs/runtime/kinds.py", "tools/__main__.py"}


def test_nobody_imports_main_tools_or_tests():
    nobodys = ("main", "tools", "tests", "benchmarks")
    found = violations(lambda path: [n for _, n in imports(TREES[path]) if n.split(".")[0] in nobodys])
    assert found == {}


def test_names_are_imported_from_modules_and_modules_from_packages():
    def whole(path: Path) -> list[str]:
        return [
            ast.unparse(node)
            for node, name in imports(TREES[path])
            if name in PACKAGES or (isinstance(node, ast.Import) and name.split(".")[0] in PACKAGES)
        ]

    assert violations(whole) == {}


def test_packages_hold_a_docstring_and_nothing_else():
    folders = {path.parent for path in files(*PACKAGES)}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    for folder in folders:
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert body, folder
        assert without_docstring(body) == [], folder


def test_every_kinds_folder_holds_kinds_and_nothing_else():
    constants = {registry.folder: registry.constant for registry in kinds.REGISTRIES}
    for name, path in MODULES.items():
        folder = kind_folder(name)
        if folder is not None:
            body = TREES[path].body
            top = {ast.unparse(t) for n in body if isinstance(n, ast.Assign) for t in n.targets}
            top |= {ast.unparse(n.target) for n in body if isinstance(n, ast.AnnAssign)}
            assert constants[folder] in top, name


def test_only_the_hub_reader_imports_datasets():
    found = violations(lambda path: [n for _, n in imports(TREES[path]) if n.split(".")[0] == "datasets"])
    assert set(found) == {"dataset/rows/hub.py"}


def test_modules_that_are_imported_late_hold_the_name():
    def calls(path: Path) -> list[ast.Call]:
        found = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)]
        return [call for call in found if ast.unparse(call.func).endswith("import_late")]

    def missing(path: Path) -> list[str]:
        literal = [call for call in calls(path) if all(isinstance(one, ast.Constant) for one in call.args)]
        pairs = [(call.args[0].value, call.args[1].value) for call in literal]
        return [f"{name}.{constant}" for name, constant in pairs if constant not in _top_names(name)]

    assert violations(missing) == {}
    assert sum(len(calls(path)) for path in TREES) > 3


def _top_names(name: str) -> set[str]:
    """Return what a module defines at its top, or nothing for a name that is no module."""
    body = TREES[MODULES[name]].body if name in MODULES else []
    assigned = {ast.unparse(t) for node in body if isinstance(node, ast.Assign) for t in node.targets}
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return assigned | defined


def test_imports_are_at_the_top():
    def inside(path: Path) -> list[str]:
        tools = path.is_relative_to(ROOT / "tools")
        return [
            function.name
            for function in functions(TREES[path])
            if any(True for _ in imports(function)) and not (tools and function.name == "main")
        ]

    assert set(violations(inside)) <= set(IMPORT_IN_FUNCTIONS)


def _no_circle(graph: Mapping[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_there_are_no_import_cycles():
    _no_circle(
        {
            name: {target for _, target in imports(TREES[path], top=True, typing=False) if target in MODULES}
            for name, path in MODULES.items()
        }
    )


def test_the_command_and_the_tools_start_light():
    """What `main` and the tools import at their top stays free of the heavy libraries."""
    starts = ["main", *(name for name in MODULES if name.startswith("tools."))]
    folders = (
        "configs",
        "dataset.rows",
        "dataset.suites",
        "dataset.tasks",
        "model.plan",
        "model.network.families",
    )
    names = [*starts, *(n for n in MODULES if n.startswith(folders) and n not in LATE)]
    program = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\n"
    program += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_main_is_the_only_module_at_the_top():
    assert {path.name for path in ROOT.glob("*.py")} <= {"main.py", "setup.py"}
