"""The code as syntax trees, for the tests that read it."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from configs.runtime import kinds

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "dataset", "model", "tools")
KINDS = tuple(registry.folder for registry in kinds.REGISTRIES)


def files(*packages: str) -> list[Path]:
    return sorted(f for package in packages for f in (ROOT / package).rglob("*.py"))


CODE = [ROOT / "main.py", *files(*PACKAGES)]
TREES = {path: ast.parse(path.read_text(), str(path)) for path in CODE}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in CODE}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.AST, *, top: bool = False, typing: bool = True) -> Iterator[tuple[ast.stmt, str]]:
    """Yield (statement, dotted name) of each import; `from a import b` gives a.b where that is a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node, whole if whole in MODULES else node.module
        elif top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        elif typing or not is_type_checking(node):
            yield from imports(node, top=top, typing=typing)


def kind_folder(name: str) -> str | None:
    return next((folder for folder in KINDS if name.startswith(f"{folder}.")), None)


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    has_one = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if has_one and isinstance(first.value.value, str) else body


def violations(check: Callable[[Path], object]) -> dict[str, object]:
    """Return what a check finds, by file."""
    found = {str(path.relative_to(ROOT)): check(path) for path in CODE}
    return {path: result for path, result in found.items() if result}
