"""The floor plan holds: imports point one way, kinds keep apart, heavy libraries come late."""

import ast
import subprocess
import sys
from pathlib import Path

from configs import kinds
from tests.tree import (
    KINDS,
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

FLOORS = {
    "configs": 0,
    "dataset": 1,
    "model": 1,
    **dict.fromkeys(KINDS, 2),
    **dict.fromkeys(("dataset.hub", "dataset.module"), 3),
    **dict.fromkeys(
        ("model.assembly", "model.backbone", "model.exchange", "model.extra_exchange", "model.injection"), 3
    ),
    **dict.fromkeys(("model.answering", "model.averaging", "model.merging", "model.parameter_counts"), 3),
    "model.learners": 4,
    "model.callbacks": 5,
    **dict.fromkeys(("model.job", "model.opening", "model.scoring", "model.training"), 6),
    **dict.fromkeys(
        ("model.finishing", "model.fitting", "model.probing", "model.searching", "model.action"), 6
    ),
    "model.routing_report": 6,
    "model.actions": 7,
    "main": 8,
    "tools": 8,
}
"""The longest prefix of a module's name decides; a module may import from its own floor or below."""

LIGHT = (
    "configs",
    *(f"dataset.{name}" for name in ("answers", "fields", "glue", "readers", "rows", "task", "tasks")),
    *(f"dataset.{name}" for name in ("instruction", "json_values", "summaries", "superglue", "template")),
    *(f"dataset.{name}" for name in ("clusters", "gathering", "mixture", "mmlu", "parts", "plain_texts")),
    *(f"model.{name}" for name in ("families", "family", "gguf_files", "plan", "plan_tables", "site")),
    *(f"model.{name}" for name in ("plans", "reallocation", "shortcut_plan")),
    *(f"model.{name}" for name in ("adapter_files", "plan_heads", "plan_text", "source", "tensor_files")),
    *(f"model.{name}" for name in ("allocation", "history", "layer_tables", "score_file", "spreading")),
)
HEAVY = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "numpy", "matplotlib", "rich")
IMPORT_IN_FUNCTIONS = (
    "main.py",
    "configs/kinds.py",
    "configs/console.py",
    "model/figures.py",
    "model/heat_maps.py",
    "model/type_maps.py",
)


def _floor(name: str) -> int:
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next(FLOORS[prefix] for prefix in prefixes if prefix in FLOORS)


def test_imports_point_to_the_own_floor_or_below():
    def above(path: Path) -> list[str]:
        mine = _floor(module_name(path))
        return [name for _, name in imports(TREES[path]) if name in MODULES and _floor(name) > mine]

    assert violations(above) == {}


def test_dataset_and_model_meet_in_main_and_in_tools_alone():
    def meets(path: Path) -> bool:
        seen = {name.split(".")[0] for _, name in imports(TREES[path])} | {module_name(path).split(".")[0]}
        return {"dataset", "model"} <= seen

    assert {path for path in violations(meets) if not path.startswith("tools/")} == {"main.py"}


def test_kinds_are_reached_through_the_registry_alone():
    assert violations(lambda path: [n for _, n in imports(TREES[path]) if kind_folder(n)]) == {}
    by_name = violations(lambda path: [n for _, n in imports(TREES[path]) if n == "importlib"])
    assert set(by_name) == {"configs/kinds.py"}


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
            top = {ast.unparse(t) for n in TREES[path].body if isinstance(n, ast.Assign) for t in n.targets}
            assert constants[folder] in top, name


def test_only_the_hub_reader_imports_datasets():
    found = violations(lambda path: [n for _, n in imports(TREES[path]) if n.split(".")[0] == "datasets"])
    assert set(found) == {"dataset/hub.py"}


def test_imports_stand_at_the_top():
    def inside(path: Path) -> list[str]:
        tools = path.is_relative_to(ROOT / "tools")
        return [
            function.name
            for function in functions(TREES[path])
            if any(True for _ in imports(function)) and not (tools and function.name == "main")
        ]

    assert set(violations(inside)) <= set(IMPORT_IN_FUNCTIONS)


def test_no_module_imports_itself_in_a_circle():
    graph = {
        name: {target for _, target in imports(TREES[path], top=True, typing=False) if target in MODULES}
        for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_light_modules_stay_light():
    def is_light(name: str) -> bool:
        return any(name == light or name.startswith(f"{light}.") for light in LIGHT)

    light = [name for name in MODULES if is_light(name)]
    assert set(LIGHT) <= set(light)
    program = f"import sys, importlib\nfor name in {light}: importlib.import_module(name)\n"
    program += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_every_module_is_part_of_the_plan():
    assert {path.name for path in ROOT.glob("*.py")} <= {"main.py"}
    for name in FLOORS:
        assert name in MODULES or name == "model.heuristics", name
