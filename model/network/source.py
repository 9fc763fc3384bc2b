"""Where a network comes from: words of `--load` resolved to paths or hub names; no heavy imports."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from configs.runtime.faults import InputFault, suggestion
from configs.schema.options import Options

PACKAGE = "package:"
_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class HubSource:
    """A network on the hub.

    Args:
        word: its name there, as the user wrote it.
        flag: the option that named it, for messages.
        offline: look in the local cache only, never ask the hub.
    """

    word: str
    flag: str
    offline: bool = False
    kind: Literal["hub"] = "hub"

    @property
    def location(self) -> str:
        """The name on the hub."""
        return self.word


@dataclass(frozen=True)
class LocalSource:
    """A network in local files.

    Args:
        word: what the user wrote.
        flag: the option that named it, for messages.
        path: the directory or the file.
        kind: a saved model's directory or a GGUF file.
    """

    word: str
    flag: str
    path: Path
    kind: Literal["directory", "gguf"]

    @property
    def location(self) -> str:
        """The path as text."""
        return str(self.path)


Source = HubSource | LocalSource


def base_source(options: Options, *, is_plain: bool) -> Source:
    """Return the source of the frozen base that the options name.

    Args:
        options: of which model, load, load_type, backbone_model and offline are read.
        is_plain: whether `--model` itself may name the base.

    Raises:
        InputFault: naming the flag, when no base is named or it does not exist.
    """
    if options.load_type == "hf":
        word, flag = options.load or options.backbone_model, "--load"
    else:
        word, flag = options.backbone_model, "--backbone-model"
    if word is None and is_plain:
        word, flag = options.model, "--model"
    if word is None:
        raise InputFault(
            f"{flag}: required; it names the frozen base: a directory, a .gguf file or a hub name"
        )
    return resolve(word, flag, offline=options.offline)


def resolve(word: str, flag: str, *, offline: bool = False) -> Source:
    """Resolve a value of `--load` or `--backbone-model`; a local path is never looked up on the hub.

    Args:
        word: the value.
        flag: the option, for messages.
        offline: whether a hub name may only come from the local cache.

    Raises:
        InputFault: naming the flag, for a path or package that does not exist and a malformed name.
    """
    if word.startswith(PACKAGE):
        return _local(word, _package_path(word, flag), flag)
    path = Path(word).expanduser() if word.startswith("~") else Path(word)
    if word and (_looks_local(word) or path.exists()):
        return _local(word, path, flag)
    if not _HUB_NAME.fullmatch(word):
        raise InputFault(f"{flag}: '{word}' is neither an existing path nor a hub name")
    return HubSource(word, flag, offline)


def _looks_local(word: str) -> bool:
    return word.startswith((".", "/", "~")) or word.endswith((*_FILES, "/")) or word.count("/") > 1


def _local(word: str, path: Path, flag: str) -> LocalSource:
    if path.is_dir():
        return LocalSource(word, flag, path, "directory")
    if not path.exists():
        raise InputFault(f"{flag}: no file or directory '{path}'")
    if path.suffix != ".gguf":
        raise InputFault(f"{flag}: '{path}' is neither a saved model's directory nor a .gguf file")
    return LocalSource(word, flag, path, "gguf")


def _package_path(word: str, flag: str) -> Path:
    """Find a path inside an installed package without importing the package."""
    name, _, inner = word.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():
        raise InputFault(f"{flag}: '{word}' is not of the form package:MODULE/PATH")
    spec = find_spec(name)
    if spec is not None and not spec.submodule_search_locations:
        raise InputFault(f"{flag}: '{name}' is a module without files of its own, not a package")
    if spec is None or not spec.submodule_search_locations:
        hint = f"; it comes with `pip install {name.replace('_', '-')}`"
        raise InputFault(f"{flag}: no Python package '{name}' is installed{hint}")
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / inner
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputFault(f"{flag}: '{inner}' lies outside the package '{name}'")
    if not path.exists():
        near = suggestion(inner, (path.name for path in root.iterdir()))
        raise InputFault(f"{flag}: the package '{name}' has no '{inner}'{near}")
    return path
