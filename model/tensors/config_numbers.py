"""Numbers of a network's configuration that no network can have, found before a heavy library is imported."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

_RANGES = {
    "vocab_size": (1, 10**8),
    "hidden_size": (1, 10**6),
    "intermediate_size": (1, 10**7),
    "ffn_dim": (1, 10**7),
    "head_dim": (1, 10**6),
    "word_embed_proj_dim": (1, 10**6),
    "pooler_hidden_size": (1, 10**6),
    "num_hidden_layers": (1, 10**5),
    "num_attention_heads": (1, 10**5),
    "num_key_value_heads": (1, 10**5),
    "max_position_embeddings": (1, 10**9),
    "type_vocab_size": (0, 10**6),
    "position_buckets": (-1, 10**6),
    "max_relative_positions": (-1, 10**9),
}
"""Key -> least and greatest value of a whole number."""
_MAY_BE_NULL = ("head_dim", "word_embed_proj_dim", "num_key_value_heads")
_NOT_NEGATIVE = ("_eps", "_epsilon", "initializer_range", "init_std", "initializer_factor")
_POSITIVE = ("rope_theta", "rope_local_base_freq", "factor")
_LARGEST = 2**63
_BYTES = 2
"""Of the smallest number format in which a network is loaded."""


def entries(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every value of a configuration that is no table."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def number_faults(config: Mapping[str, Any]) -> list[str]:
    """Return a line for each number of a configuration that no network can have, key first.

    Args:
        config: the content of config.json.
    """
    faults = [f"{key}: {what}" for key, value in entries(config) if (what := _fault(key, value)) is not None]
    if faults:
        return faults
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads is not None and groups is not None and heads % groups:
        faults.append(f"num_key_value_heads: must divide num_attention_heads {heads}, got {groups}")
    pad, words = config.get("pad_token_id"), config.get("vocab_size")
    if type(pad) is int and words is not None and not -words <= pad < words:
        faults.append(f"pad_token_id: must be less than vocab_size {words}, got {pad}")
    return faults


def least_bytes(config: Mapping[str, Any]) -> int:
    """Return a lower bound of a network's size: one embedding, and two matrices of each layer's attention.

    Args:
        config: the content of config.json, which has no `number_faults`; defaults are not counted.
    """
    width, words, layers = (
        config.get(key) or 0 for key in ("hidden_size", "vocab_size", "num_hidden_layers")
    )
    return _BYTES * (words * (config.get("word_embed_proj_dim") or width) + 2 * layers * width**2)


def _fault(path: str, value: Any) -> str | None:
    """Return what is wrong with one value; None where nothing is."""
    key = path.rpartition(".")[2]
    for number in value if isinstance(value, list) else (value,):
        if type(number) is float and not math.isfinite(number):
            return f"must be a finite number, got {number}"
        if type(number) is int and not -_LARGEST <= number < _LARGEST:
            return "must be a number of at most 64 bits"
    if key != path and not path.startswith("rope_"):  # a table of class names may have any keys
        return None
    if key in _RANGES:
        least, greatest = _RANGES[key]
        is_fine = type(value) is int and least <= value <= greatest or value is None and key in _MAY_BE_NULL
        return None if is_fine else f"must be a whole number from {least} to {greatest:,}, got {value!r}"
    return _fraction_fault(key, value)


def _fraction_fault(key: str, value: Any) -> str | None:
    if "dropout" in key or key == "layerdrop":
        if value is None and key.startswith(("classifier", "cls")):  # the layers' dropout is taken then
            return None
        is_fine = _is_number(value) and 0 <= value <= 1
        return None if is_fine else f"must be a number in [0, 1], got {value!r}"
    if key.endswith(_NOT_NEGATIVE) and _is_number(value) and value < 0:
        return f"must not be negative, got {value}"
    if key in _POSITIVE and not (_is_number(value) and value > 0):
        return f"must be a positive number, got {value!r}"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
