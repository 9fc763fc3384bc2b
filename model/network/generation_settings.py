"""Decoding settings of a language model: those of this program, whatever the files of its base recommend.

A base may bring a generation_config.json with sampling, beams, penalties or suppressed tokens, which
`generate` of transformers follows silently. Here a network gets settings without any of them; the file is
named in a note and copied unchanged into every checkpoint that is made of the base.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from configs.runtime.files import read_regular, write_text

FILE = "generation_config.json"
_NO_SETTING = ("bos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
_NEUTRAL: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}
"""Values that change no greedy answer."""


def plain_settings(network: PreTrainedModel) -> None:
    """Give a network settings that contain the ids of its special tokens and nothing else."""
    if getattr(network, "generation_config", None) is None:
        return
    config = network.config
    network.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )


def read_settings(directory: Path) -> dict[str, Any] | None:
    """Return the content of a base's generation_config.json; None where there is no JSON object."""
    try:
        content = json.loads(read_regular(directory / FILE))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def old_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config.json says about decoding, as it did before there was a file of its own."""
    known = vars(GenerationConfig())
    return {key: value for key, value in config.items() if key in known and not key.endswith("_token_id")}


def unused_settings(
    settings: Mapping[str, Any] | None, tokenizer: PreTrainedTokenizerBase | None, file: str = FILE
) -> str | None:
    """Return a note on the settings of a base that this program does not follow; None without any.

    Args:
        settings: what `read_settings` or `old_settings` returned.
        tokenizer: its end-of-sequence token alone ends an answer.
        file: the name of the file with the settings.
    """
    end = None if tokenizer is None else tokenizer.eos_token_id
    unused = {
        name: value
        for name, value in sorted((settings or {}).items())
        if name not in _NO_SETTING and value not in (None, False) and value != _NEUTRAL.get(name)
    }
    if "eos_token_id" in unused and unused["eos_token_id"] in (end, [end]):
        del unused["eos_token_id"]
    if not unused:
        return None
    listed = ", ".join(f"{name} {json.dumps(value, allow_nan=True)}" for name, value in unused.items())
    return (
        f"{file} of the base is not followed: {listed}; an answer ends at the tokenizer's end token ({end})"
    )


def write_settings(settings: Mapping[str, Any], directory: Path) -> None:
    """Write a base's generation_config.json as it is, without numbers that are not finite."""
    finite = {name: value for name, value in settings.items() if _is_json(value)}
    write_text(directory / FILE, json.dumps(finite, indent=2, allow_nan=False) + "\n")


def _is_json(value: Any) -> bool:
    """Return whether a value has no NaN or infinity, which Python reads from JSON and JSON has not."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
