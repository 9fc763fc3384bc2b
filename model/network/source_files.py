"""The files of a local source: configuration, weights, tokenizer, checked without heavy imports."""

import hashlib
import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any

from configs.runtime.faults import InputFault, unknown
from configs.runtime.files import read_regular, sha256
from configs.runtime.memory import memory_fault
from configs.schema.values import shown
from model.network.family import Family, model_types
from model.network.source import LocalSource, Source, resolve
from model.tensors.config_numbers import least_bytes, number_faults
from model.tensors.gguf_header import read_gguf_header
from model.tensors.safetensors_header import REAL, DoubledKey, is_index, read_header, unique_keys

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spm.model")
_FIXED: dict[str, Any] = {"return_dict": True, "is_encoder_decoder": False, "chunk_size_feed_forward": 0}
"""Key of config.json -> the only value that its networks run with."""
_SAVED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Number format in safetensors -> its name."""
DTYPES = tuple(_SAVED.values())
"""Number formats of a checkpoint."""
_GGUF_ARCHITECTURES = {"gemma3": "gemma3_text"}
"""Architecture in GGUF -> `model_type` in transformers, where they differ."""
_GGUF_KEYS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
}


def checked_source(word: str, flag: str, *, offline: bool = False) -> Source:
    """Resolve a value of `--load` and refuse a network that cannot be loaded, weights and tokenizer included.

    Raises:
        InputFault: as `resolve` and `check_source`.
    """
    source = resolve(word, flag, offline=offline)
    check_source(source)
    return source


def saved_network(word: str, flag: str) -> tuple[Path, Family]:
    """Return the directory that a word names and the family of the network whose config.json it contains.

    Args:
        word: the value of an option.
        flag: the option, for messages.

    Raises:
        InputFault: naming the flag or the file, when there is no such directory or no known network in it.
    """
    source = resolve(word, flag, offline=True)
    if source.kind != "directory":
        raise InputFault(f"{flag}: '{word}' is not a directory with a config.json")
    check_source(source, pretrained=False, tokenizer=False)
    return source.path, family_of(read_config(source), source)


def check_source(source: Source, *, pretrained: bool = True, tokenizer: bool = True) -> None:
    """Refuse a local source that cannot be loaded; a hub name is checked once it was downloaded.

    Args:
        source: what `resolve` returned.
        pretrained: whether it needs weights.
        tokenizer: whether it needs a tokenizer.

    Raises:
        InputFault: naming the file and what is wrong with it.
    """
    if source.kind == "hub":
        return
    config = read_config(source)
    family_of(config, source)
    faults = [*number_faults(config), *_fixed_faults(config)]
    if faults:
        raise InputFault(*(f"{_described(source)}: {fault}" for fault in faults))
    if source.kind == "gguf":
        return
    _require_regular(source.path)
    if "quantization_config" in config or "transformers_weights" in config:
        raise InputFault(f"{_config_path(source)}: quantized or renamed weights are not supported")
    if (source.path / "adapter_config.json").exists():
        raise InputFault(
            f"{source.flag}: '{source.path}' contains an adapter besides the network; give it as --adapter"
        )
    if tokenizer and not any((source.path / name).exists() for name in TOKENIZER_FILES):
        raise InputFault(
            f"{source.flag}: '{source.path}' contains no tokenizer: none of {', '.join(TOKENIZER_FILES)}"
        )
    if tokenizer:
        _require_tokenizer_files(source)
    for path in weight_files(source) if pretrained else ():
        if path.suffix == ".safetensors":
            _require_real(path)


def _fixed_faults(config: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting with which a network of these families cannot be run here."""
    return [
        f"{key}: must be {json.dumps(wanted, allow_nan=False)}, got {shown(config[key])}"
        for key, wanted in _FIXED.items()
        if config.get(key, wanted) != wanted
    ]


def _require_regular(directory: Path) -> None:
    """Refuse a pipe or a device among the files, which would be waited for without end."""
    for path in sorted(directory.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputFault(f"{path}: is not a regular file")


def _require_tokenizer_files(source: LocalSource) -> None:
    """Refuse descriptions that are no JSON objects, and a SentencePiece model alone without its package."""
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (source.path / name).exists():
            length = read_json(source.path / name).get("model_max_length", 1)
            if type(length) not in (int, float, NoneType):
                raise InputFault(f"{source.path / name}: model_max_length: must be a number, got {length!r}")
    models = [name for name in ("tokenizer.model", "spm.model") if (source.path / name).exists()]
    is_alone = not any((source.path / name).exists() for name in TOKENIZER_FILES if name not in models)
    if models and is_alone and find_spec("sentencepiece") is None:
        raise InputFault(
            f"{source.path / models[0]}: needs the package sentencepiece (`pip install sentencepiece`), or a"
            " tokenizer.json beside it"
        )


def require_memory(source: LocalSource) -> None:
    """Refuse a network of which a part alone exceeds this machine's memory, before it is built.

    Raises:
        InputFault: naming the file, both sizes and the keys they come from.
    """
    fault = memory_fault(least_bytes(read_config(source)))
    if fault:
        raise InputFault(f"{_described(source)}: vocab_size, hidden_size, num_hidden_layers: need {fault}")


def _require_real(path: Path) -> None:
    """Refuse weights that are not floating-point numbers; buffers of indices may be integers."""
    for name, info in read_header(path).items():
        if info.dtype not in REAL and not is_index(name):
            raise InputFault(f"{path}: {name}: must be floating-point numbers, is {info.dtype}")


def family_of(config: Mapping[str, Any], source: LocalSource) -> Family:
    """Return the family of a source's architecture.

    Args:
        config: what `read_config` returned.
        source: the source, for messages.

    Raises:
        InputFault: naming the architecture and the supported ones.
    """
    word, known = config.get("model_type"), model_types()
    if type(word) is not str:
        raise InputFault(f"{source.path}: model_type: missing; it names the architecture")
    if word not in known:
        raise InputFault(f"{source.flag}: {unknown('architecture', word, known)}")
    return known[word]


def read_config(source: LocalSource) -> dict[str, Any]:
    """Return the keys of a source's configuration, without importing a heavy library.

    Raises:
        InputFault: naming config.json or the GGUF file, when it cannot be read.
    """
    if source.kind == "gguf":
        fields = read_gguf_header(source.path).fields
        kind = fields.get("general.architecture")
        found = {ours: fields.get(f"{kind}.{theirs}") for ours, theirs in _GGUF_KEYS.items()}
        word = _GGUF_ARCHITECTURES.get(str(kind), kind)
        return {"model_type": word, **{key: value for key, value in found.items() if value is not None}}
    if not _config_path(source).exists():
        adapter = (source.path / "adapter_config.json").exists()
        hint = "; it is an adapter, give it as --adapter" if adapter else ""
        raise InputFault(f"{source.flag}: '{source.path}' contains no config.json{hint}")
    return read_json(_config_path(source))


def read_json(path: Path, *, unique: bool = False) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        path: the file.
        unique: whether to refuse a key that occurs twice, of which the last one counts otherwise.

    Raises:
        InputFault: naming the file, when it cannot be read or holds something else, and a doubled key.
    """
    try:
        text = read_regular(path).decode("utf-8")
        table = json.loads(text, object_pairs_hook=unique_keys if unique else None)
    except DoubledKey as doubled:
        raise InputFault(f"{path}: {doubled.key}: occurs twice") from None
    except (ValueError, RecursionError) as error:
        what = "is empty" if not path.stat().st_size else f"is not valid JSON ({error})"
        raise InputFault(f"{path}: {what}") from None
    except OSError as error:
        raise InputFault(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(table, dict):
        raise InputFault(f"{path}: is not a JSON object")
    return table


def weight_files(source: LocalSource) -> tuple[Path, ...]:
    """Return the files with a source's weights: safetensors files if there are any, else pickle-based ones.

    Raises:
        InputFault: naming the directory without weights, or the faulty index or shard.
    """
    if source.kind == "gguf":
        return (source.path,)
    for name in _WEIGHTS:
        if (source.path / name).exists():
            return (source.path / name,)
        if (source.path / f"{name}.index.json").exists():
            return _shards(source.path / f"{name}.index.json")
    raise InputFault(f"{source.flag}: '{source.path}' contains no weights: none of {', '.join(_WEIGHTS)}")


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(type(name) is str for name in weight_map.values()):
        raise InputFault(f"{index}: weight_map: must map each tensor to its file")
    shards = {name: index.parent / name for name in sorted(set(weight_map.values()))}
    for name, path in shards.items():
        if Path(name).name != name or not path.is_file():
            raise InputFault(f"{index}: names the file '{name}', which is not in its directory")
        if path.suffix == ".safetensors":
            lacking = {tensor for tensor, file in weight_map.items() if file == name} - set(read_header(path))
            if lacking:
                raise InputFault(f"{path}: has no tensor {min(lacking)}, although {index.name} names it")
    return tuple(shards.values())


def weights_dtype(source: LocalSource) -> str:
    """Return the number format of most of a source's weights: float32, float16 or bfloat16.

    Without headers to read (pickle-based files) config.json decides; a GGUF file is unpacked to float32.

    Raises:
        InputFault: naming the file that cannot be read.
    """
    if source.kind == "gguf":
        return "float32"
    sizes: dict[str, int] = {}
    for path in weight_files(source):
        headers = read_header(path).values() if path.suffix == ".safetensors" else ()
        for info in headers:
            sizes[info.dtype] = sizes.get(info.dtype, 0) + math.prod(info.shape)
    config = read_config(source)
    recorded = config.get("dtype") or config.get("torch_dtype")
    found = _SAVED.get(max(sizes, key=lambda name: sizes[name])) if sizes else recorded
    return found if found in DTYPES else "float32"


def digest_of(source: LocalSource, *, pretrained: bool = True) -> str:
    """Return the SHA-256 over names and contents of a source's files.

    Args:
        source: the source.
        pretrained: whether the weights count, or the configuration alone.

    Returns:
        64 hexadecimal digits.
    """
    files = weight_files(source) if pretrained or source.kind == "gguf" else ()
    if source.kind == "directory":
        files = (_config_path(source), *files)
    # A GGUF file may have any name; the names of files in a directory are fixed.
    names = [path.name if source.kind == "directory" else "gguf" for path in files]
    lines = [f"{name} {sha256(path)}\n" for name, path in zip(names, files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _described(source: LocalSource) -> Path:
    """Return the file with a source's configuration."""
    return _config_path(source) if source.kind == "directory" else source.path


def _config_path(source: LocalSource) -> Path:
    return source.path / "config.json"
