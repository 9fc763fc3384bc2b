"""Where a network comes from: words of `--load` made paths, checked before the heavy libraries load."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from configs.runtime.faults import InputFault, suggestion, unknown
from configs.runtime.files import sha256
from model.network.family import Family, model_types
from model.tensors.gguf_header import read_gguf_header
from model.tensors.safetensors_header import read_header

PACKAGE = "package:"
_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model")
_GGUF_ARCHITECTURES = {"gemma3": "gemma3_text"}
"""Words of GGUF that differ from the host's `model_type`."""
_GGUF_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True)
class Source:
    """A network's origin.

    Args:
        word: what the user wrote.
        flag: the option it was written for; names it in messages.
        kind: a saved model's directory, a GGUF file, or a name on the hub.
        path: the directory or file; None for a hub name.
        offline: never ask a hub, only its local cache.
    """

    word: str
    flag: str
    kind: Literal["directory", "gguf", "hub"]
    path: Path | None = None
    offline: bool = False


def of_base(options: Any, *, is_plain: bool) -> Source:
    """Return the source of the frozen base that the options name.

    Args:
        options: reads model, load, load_type, backbone_model and offline.
        is_plain: whether `--model` itself may name it.

    Raises:
        InputFault: naming the flag, when no base is named or it is not there.
    """
    if options.load_type == "hf":
        word, flag = options.load or options.backbone_model, "--load"
    else:
        word, flag = options.backbone_model, "--backbone-model"
    if word is None and is_plain:
        word, flag = options.model, "--model"
    if word is None:
        raise InputFault(f"{flag}: required, it names the frozen base: a directory, a .gguf file, a hub name")
    return resolve(word, flag, offline=options.offline)


def resolve(word: str, flag: str, *, offline: bool = False) -> Source:
    """Say what a word of `--load` or `--backbone-model` means; a local path is never looked up on the hub.

    Raises:
        InputFault: naming the flag, for a path or package that is not there and a word that is no name.
    """
    if word.startswith(PACKAGE):
        return _local(word, _package_path(word, flag), flag)
    path = Path(word).expanduser() if word.startswith("~") else Path(word)
    if word and (_looks_local(word) or path.exists()):
        return _local(word, path, flag)
    if not _HUB_NAME.fullmatch(word):
        raise InputFault(f"{flag}: '{word}' is no path that exists and no hub name")
    return Source(word, flag, "hub", offline=offline)


def _looks_local(word: str) -> bool:
    return word.startswith((".", "/", "~")) or word.endswith((*_FILES, "/")) or word.count("/") > 1


def _local(word: str, path: Path, flag: str) -> Source:
    if path.is_dir():
        return Source(word, flag, "directory", path)
    if not path.exists():
        raise InputFault(f"{flag}: no file or directory '{path}'")
    if path.suffix != ".gguf":
        raise InputFault(f"{flag}: '{path}' is neither a saved model's directory nor a .gguf file")
    return Source(word, flag, "gguf", path)


def _package_path(word: str, flag: str) -> Path:
    """Find a path inside an installed package without importing the package."""
    name, _, inner = word.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier():
        raise InputFault(f"{flag}: '{word}' is not of the form package:MODULE/PATH")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        hint = f"; it comes with `pip install {name.replace('_', '-')}`"
        raise InputFault(f"{flag}: no Python package '{name}' is installed{hint}")
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / inner
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputFault(f"{flag}: '{inner}' leads out of the package '{name}'")
    if not path.exists():
        near = suggestion(inner, (entry.name for entry in root.iterdir()))
        raise InputFault(f"{flag}: the package '{name}' holds no '{inner}'{near}")
    return path


def checked(word: str, flag: str, *, offline: bool = False) -> Source:
    """Say what a word means and refuse what cannot be loaded, weights and tokenizer included.

    Raises:
        InputFault: as `resolve` and `check`.
    """
    source = resolve(word, flag, offline=offline)
    check(source)
    return source


def check(source: Source, *, pretrained: bool = True, tokenizer: bool = True) -> None:
    """Refuse a local source that cannot be loaded; a hub name is checked after it was fetched.

    Args:
        source: what `resolve` returned.
        pretrained: whether weights are wanted.
        tokenizer: whether a tokenizer is wanted.

    Raises:
        InputFault: naming the file and what is wrong with it.
    """
    config = peek_config(source)
    if config is None:
        return
    family_of(config, source)
    if source.kind != "directory":
        return
    if "quantization_config" in config or "transformers_weights" in config:
        raise InputFault(f"{_config_path(source)}: quantised or renamed weights are not read")
    if (source.path / "adapter_config.json").exists():
        raise InputFault(
            f"{source.flag}: '{source.path}' holds an adapter beside the network; give it as --adapter"
        )
    if tokenizer and not any((source.path / name).exists() for name in TOKENIZER_FILES):
        raise InputFault(
            f"{source.flag}: '{source.path}' holds no tokenizer, none of {', '.join(TOKENIZER_FILES)}"
        )
    if pretrained:
        for path in weight_files(source):
            if path.suffix == ".safetensors":
                read_header(path)


def family_of(config: Mapping[str, Any], source: Source) -> Family:
    """Return the family that a source's configuration belongs to.

    Raises:
        InputFault: naming the architecture and those that are known.
    """
    word, known = config.get("model_type"), model_types()
    if type(word) is not str:
        raise InputFault(
            f"{source.path or source.word}: model_type: missing; it says which architecture this is"
        )
    if word not in known:
        raise InputFault(f"{source.flag}: {unknown('architecture', word, known)}")
    return known[word]


def peek_config(source: Source) -> dict[str, Any] | None:
    """Return the configuration's keys without any heavy library; None for a hub name.

    Raises:
        InputFault: naming config.json or the GGUF file when it cannot be read.
    """
    if source.kind == "hub":
        return None
    if source.kind == "gguf":
        fields = read_gguf_header(source.path).fields
        kind = fields.get("general.architecture")
        found = {ours: fields.get(f"{kind}.{theirs}") for ours, theirs in _GGUF_KEYS.items()}
        word = _GGUF_ARCHITECTURES.get(str(kind), kind)
        return {"model_type": word, **{key: value for key, value in found.items() if value is not None}}
    if not _config_path(source).exists():
        adapter = (source.path / "adapter_config.json").exists()
        hint = "; this is an adapter, give it as --adapter" if adapter else ""
        raise InputFault(f"{source.flag}: '{source.path}' holds no config.json{hint}")
    return read_json(_config_path(source))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON table.

    Raises:
        InputFault: naming the file.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        what = "is empty" if not path.stat().st_size else f"is no valid JSON ({error})"
        raise InputFault(f"{path}: {what}") from None
    except OSError as error:
        raise InputFault(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(table, dict):
        raise InputFault(f"{path}: is no table of keys")
    return table


def weight_files(source: Source) -> tuple[Path, ...]:
    """Return the files that hold a local source's weights: safetensors if there are any, else pickle-based.

    Raises:
        InputFault: naming the directory without weights, or the index or the file it names.
    """
    if source.kind == "gguf":
        return (source.path,)
    for name in _WHOLE:
        if (source.path / name).exists():
            return (source.path / name,)
        if (source.path / f"{name}.index.json").exists():
            return _shards(source.path / f"{name}.index.json")
    raise InputFault(f"{source.flag}: '{source.path}' holds no weights, none of {', '.join(_WHOLE)}")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(type(name) is str for name in weight_map.values()):
        raise InputFault(f"{index}: weight_map: must say in which file each tensor is")
    shards = {name: index.parent / name for name in sorted(set(weight_map.values()))}
    for name, path in shards.items():
        if Path(name).name != name or not path.is_file():
            raise InputFault(f"{index}: names the file '{name}', which is not beside it")
        if path.suffix == ".safetensors":
            lacking = {tensor for tensor, file in weight_map.items() if file == name} - set(read_header(path))
            if lacking:
                raise InputFault(f"{path}: lacks {min(lacking)}, which {index.name} places there")
    return tuple(shards.values())


def digest(source: Source, *, pretrained: bool = True) -> str:
    """Return the SHA-256 over the names and contents of a local source's configuration and weights."""
    files = weight_files(source) if pretrained or source.kind == "gguf" else ()
    if source.kind == "directory":
        files = (_config_path(source), *files)
    # A GGUF file's name says nothing about the network, those in a directory are fixed.
    names = [path.name if source.kind == "directory" else "gguf" for path in files]
    lines = [f"{name} {sha256(path)}\n" for name, path in zip(names, files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _config_path(source: Source) -> Path:
    return source.path / "config.json"
