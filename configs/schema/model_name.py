"""The value of `--model`: a family with adapters, or a plain model."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from configs.runtime import kinds
from configs.runtime.faults import InputFault, unknown

Method = Literal["full", "lora", "lora_ags"]
AUTO = "auto"
"""The FAMILY that means the loaded network's own."""


@dataclass(frozen=True)
class ModelName:
    """What a value of `--model` means.

    Args:
        family: a kind of `model.network.families`; None where the network decides: a plain model, or `auto`.
        method: full fine-tuning, adapters, or adapters and shortcuts.
    """

    family: str | None
    method: Method


def model_name(word: str, where: str = "--model") -> ModelName:
    """Read a value of `--model`; a path or a hub name is a plain model.

    Raises:
        InputFault: when the family does not exist, or the word looks like a misspelt family.
    """
    if "/" in word:
        return ModelName(None, "full")
    for method in ("lora_ags", "lora"):
        if word.endswith(f"_{method}"):
            return ModelName(_family(word.removesuffix(f"_{method}"), where), method)
    if not os.path.exists(word):
        families = (AUTO, *kinds.names(kinds.FAMILIES))
        words = [f"{family}_{method}" for family in families for method in ("lora", "lora_ags")]
        near = get_close_matches(word.lower(), words, n=1, cutoff=0.8)
        near = near or sorted((one for one in words if word.startswith(f"{one}_")), key=len, reverse=True)
        if near:
            raise InputFault(f"{where}: no model '{word}'; did you mean '{near[0]}'?")
    return ModelName(None, "full")


def _family(family: str, where: str) -> str | None:
    if family == AUTO:
        return None
    if family not in kinds.names(kinds.FAMILIES):
        raise InputFault(f"{where}: {unknown('model family', family, (AUTO, *kinds.names(kinds.FAMILIES)))}")
    return family
