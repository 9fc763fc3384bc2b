"""One writer, one loader, no code from data, and the limits of the house style."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.runtime import kinds
from tests.support.tree import (
    MODULES,
    ROOT,
    TREES,
    files,
    functions,
    imports,
    kind_folder,
    violations,
    without_docstring,
)

WRITERS = {
    "configs/runtime/console.py": {"open"},  # the null device, for lines that nobody reads any more
    "configs/runtime/files.py": {"write_bytes", "touch"},
    "model/training/callbacks/metrics_record.py": {"open", "truncate"},  # the log that is appended to
    "model/tensors/weights.py": {"torch.load"},
}
"""The one writer, the one log, the one loader: all that may call what `_dangerous` names."""


NO_MIRROR = {"configs/test_startup.py"}  # about all of configs at once
ABOUT_MORE = {"structure", "end_to_end", "golden"}  # folders of tests that are about more than one module
SECTION_10 = {"E", "F", "I", "UP", "B", "ANN", "D", "C901", "PLR0913", "T20", "ERA", "SIM"}


def _mode(call: ast.Call, position: int) -> str:
    """Return the mode of an open call: `r` where none is given."""
    given = [k.value for k in call.keywords if k.arg == "mode"] or call.args[position : position + 1]
    return ast.literal_eval(given[0]) if given else "r"


def _opens_for_writing(call: ast.Call, name: str) -> bool:
    if name in ("open", "io.open", "gzip.open", "codecs.open"):
        return set(_mode(call, 1)) & set("wax+") != set()
    if name == "os.open":
        return any(word in ast.unparse(call) for word in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND"))
    return name.endswith(".open") and set(_mode(call, 0)) & set("wax+") != set()


_FORBIDDEN_CALLS = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "torch.load",
        "torch.save",
        "numpy.load",
        "np.load",
        "np.save",
    ),
    *("os.system", "os.popen", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree"),
    *("shutil.move", "safetensors.torch.save_file", "save_file", "yaml.load", "json.dump"),
}
_FORBIDDEN_ENDINGS = {"write_text", "write_bytes", "truncate", "touch"}
_FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "runpy",
    "yaml",
}


def _dangerous(tree: ast.AST) -> Iterator[str]:
    """Yield the name of every call that runs code or writes a file."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in _FORBIDDEN_CALLS:
            yield name
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _FORBIDDEN_ENDINGS:
            yield node.func.attr
        elif name.split(".")[-1] == "open" and _opens_for_writing(node, name):
            yield "open"
        if any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords):
            yield "shell"
        if any(k.arg == "trust_remote_code" and ast.unparse(k.value) != "False" for k in node.keywords):
            yield "trust_remote_code"


def test_no_module_exists_on_posix_alone():
    """So that every file can be imported on Windows."""
    only = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
    assert violations(lambda path: [n for _, n in imports(TREES[path]) if n.split(".")[0] in only]) == {}


def test_json_that_is_written_or_printed_is_never_nan():
    """JSON has no NaN; exempt are texts that are digested, compared or shown, and checkpoints."""
    exempt = {"comparison", "checkpoint", "mmlu", "fields", "gather", "model_card"}

    def loose(path):
        calls = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.Call)]
        dumps = [node for node in calls if ast.unparse(node.func) == "json.dumps"]
        open_ = [one for one in dumps if "allow_nan" not in {word.arg for word in one.keywords}]
        return [] if path.stem in exempt else [ast.unparse(one) for one in open_]

    assert violations(loose) == {}


def test_only_the_writer_module_writes_and_nothing_is_executed():
    assert violations(lambda path: set(_dangerous(TREES[path]))) == WRITERS
    imported = violations(
        lambda path: [n for _, n in imports(TREES[path]) if n.split(".")[0] in _FORBIDDEN_MODULES]
    )
    assert imported == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("open(p, 'w')", "open"),
        ("p.open(mode='ab')", "open"),
        ("p.open()", None),
        ("open(p, 'rb')", None),
        ("os.open(p, os.O_RDWR)", "open"),
        ("os.open(p, os.O_RDONLY)", None),
        ("p.write_text('x')", "write_text"),
        ("write_text(p, 'x')", None),
        ("eval('1')", "eval"),
        ("network.eval()", None),
        ("torch.load(p, weights_only=True)", "torch.load"),
        ("subprocess.run('x', shell=True)", "shell"),
        ("AutoModel.from_pretrained(p, trust_remote_code=flag)", "trust_remote_code"),
    ],
)
def test_the_search_for_writers_finds_them(text, found):
    assert list(_dangerous(ast.parse(text))) == ([found] if found else [])


def test_torch_files_are_read_as_plain_weights():
    for node in (node for tree in TREES.values() for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert {k.arg: ast.unparse(k.value) for k in node.keywords}["weights_only"] == "True"


def test_devices_come_from_lightning():
    def named(path: Path) -> list[str]:
        documents = {
            id(node.body[0].value)
            for node in ast.walk(TREES[path])
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        texts = [n for n in ast.walk(TREES[path]) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        return [n.value for n in texts if "cuda" in n.value.lower() and id(n) not in documents]

    # Words of other programs name theirs.
    assert set(violations(named)) <= {"configs/schema/foreign_names.py"}


def test_no_module_tests_for_the_class_of_a_kind():
    classes = {
        node.name
        for name, path in MODULES.items()
        if kind_folder(name)
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.ClassDef)
    }
    assert "Lora" in classes
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                own = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
                assert not asked & (classes - own), path


def test_files_fit_their_limit():
    def excess(path: Path) -> int:
        return max(0, len(path.read_text().splitlines()) - 300)

    assert not violations(excess)


def test_function_bodies_fit_their_limit():
    def long(path: Path) -> dict[str, int]:
        lines, found = path.read_text().splitlines(), {}
        for function in functions(TREES[path]):
            body = without_docstring(function.body)
            length = function.end_lineno - body[0].lineno + 1 if body else 0
            if length > 40 and "#" not in lines[function.lineno - 1]:  # a reason on the line
                found[function.name] = length
        return found

    assert not violations(long)


def test_everything_is_annotated_and_every_module_documented():
    def bare(path: Path) -> list[str]:
        found = [] if ast.get_docstring(TREES[path]) else ["module docstring"]
        for function in functions(TREES[path]):
            arguments = function.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            named += [one for one in (arguments.vararg, arguments.kwarg) if one]
            missing = [one.arg for one in named if one.annotation is None and one.arg not in ("self", "cls")]
            if missing or function.returns is None:
                found.append(function.name)
        return found

    assert violations(bare) == {}


def test_the_linter_enforces_the_rest():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert settings["line-length"] == 110
    assert set(settings["lint"]["select"]) >= SECTION_10
    assert settings["lint"]["mccabe"]["max-complexity"] <= 10
    assert settings["lint"]["pylint"]["max-args"] <= 7


def test_a_silenced_rule_has_its_reason():
    def unexplained(path: Path) -> list[str]:
        silenced = [line for line in path.read_text().splitlines() if "# noqa" in line]
        return [line for line in silenced if len(line.split("# noqa", 1)[1].split()) < 3]

    assert violations(unexplained) == {}


def _mirrored(path: Path) -> bool:
    """Return whether a test's path mirrors that of its module, with or without `_aspect` after the name."""
    place = path.relative_to(ROOT / "tests").parent
    stem = path.stem.removeprefix("test_")
    if place == Path("contracts"):
        return stem.removeprefix("every_") in {registry.constant.lower() for registry in kinds.REGISTRIES}
    return any(
        stem == module.stem or stem.startswith(f"{module.stem}_")
        for module in (ROOT / place).glob("*.py")
        if module.stem != "__init__"
    )


def test_tests_mirror_the_tree():
    odd = [
        str(path.relative_to(ROOT / "tests"))
        for path in files("tests")
        if path.stem.startswith("test_") and ABOUT_MORE.isdisjoint(path.parts) and not _mirrored(path)
    ]
    assert set(odd) <= NO_MIRROR
