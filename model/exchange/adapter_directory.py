"""An adapter's directory as far as it can be read without torch: tables, shapes, what it was trained for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runtime.faults import InputFault
from configs.schema.base_dtype import quantizer_faults
from configs.schema.options import QUANTIZED_DTYPES
from model.network.source import read_json
from model.tensors.safetensors_header import TensorInfo, read_header

_CONFIG, _TENSORS, _METADATA = "adapter_config.json", "adapter_model.safetensors", "metadata.json"
_OBJECTIVES = {
    "CAUSAL_LM": "language_modeling",
    "SEQ_CLS": "classification",
    "causal_language_modeling": "language_modeling",
    "summarization": "language_modeling",
    "classification": "classification",
}
BASES = ("float32", *QUANTIZED_DTYPES)
"""Words of `--base-dtype` in tools."""

TASKS = ("classification", "causal_language_modeling", "summarization")
"""Words of `--task` that say what a network with an adapter is for."""


@dataclass(frozen=True)
class AdapterFiles:
    """What an adapter's directory says of itself.

    Args:
        path: the directory.
        config: adapter_config.json.
        metadata: metadata.json; empty for an adapter of another tool.
        tensors: what the header of adapter_model.safetensors lists.
    """

    path: Path
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def head(self) -> dict[str, tuple[int, ...]]:
        """The shapes of tensors that belong to no low-rank factor."""
        return {name: info.shape for name, info in self.tensors.items() if "lora_" not in name}

    @property
    def template(self) -> str | None:
        """The prompt template the adapter was trained with."""
        return self.metadata.get("template")


def find(path: Path, flag: str) -> Path:
    """Return the directory of an adapter, which may be named by its run.

    Raises:
        InputFault: naming the flag.
    """
    for place in (path, path / "adapter"):
        if (place / _CONFIG).is_file():
            return place
    raise InputFault(f"{flag}: '{path}' is neither an adapter (it holds no {_CONFIG}) nor a run with one")


def read_files(path: Path, flag: str) -> AdapterFiles:
    """Read the tables and the tensors' header of an adapter or of a run's adapter.

    Raises:
        InputFault: naming the flag or the file.
    """
    place = find(path, flag)
    if not (place / _TENSORS).is_file():
        raise InputFault(f"{flag}: {place} holds no {_TENSORS}")
    metadata = _metadata(place / _METADATA) if (place / _METADATA).exists() else {}
    return AdapterFiles(place, read_json(place / _CONFIG), metadata, read_header(place / _TENSORS))


def objective(files: AdapterFiles, task: str | None) -> str:
    """Return what the network with this adapter is for; `task` says it where the files do not.

    Raises:
        InputFault: when nobody says it, or the word of `--task` contradicts the files.
    """
    recorded = files.metadata.get("evaluation", {}).get("task") or files.config.get("task_type")
    found = _OBJECTIVES.get(recorded) if isinstance(recorded, str) else None
    if found is None and task is None:
        raise InputFault(f"--task: required, {files.path} does not say what it was trained for")
    if found is not None and task is not None and _OBJECTIVES[task] != found:
        raise InputFault(f"--task: {files.path} was trained for {recorded}, got '{task}'")
    served = found or _OBJECTIVES[task]
    return "regression" if served == "classification" and len(labels(files)) == 1 else served


def labels(files: AdapterFiles) -> tuple[str, ...]:
    """Return the class names: the recorded ones, else one for each row of the head's last matrix."""
    recorded = files.metadata.get("labels")
    if recorded:
        return tuple(recorded)
    matrices = {name: shape[0] for name, shape in files.head.items() if len(shape) == 2}
    rows = [count for name, count in matrices.items() if "pooler" not in name and "embed" not in name]
    return tuple(f"LABEL_{number}" for number in range(min(rows, default=0)))


def base_format(files: AdapterFiles, given: str | None) -> str:
    """Return the number format of the base's linears: the given one, or int8 or nf4 if trained on it.

    Raises:
        InputFault: when it needs a package that is not installed.
    """
    told = files.metadata.get("evaluation", {}).get("base_dtype")
    word = given or (told if told in QUANTIZED_DTYPES else "float32")
    faults = quantizer_faults(
        word, "--base-dtype" if given else f"--adapter: {files.path}: trained on a base"
    )
    if faults:
        raise InputFault(*faults)
    return word


def trained_prompt(adapters: Sequence[Path], dataset: str) -> dict[str, str]:
    """Return the `template` an adapter was trained with on this data set as a table, empty without one.

    Of a mixture's parts the one of this name is the data set's.

    Args:
        adapters: directories in PEFT format; the first decides.
        dataset: the word of `--dataset`.

    Raises:
        InputFault: when metadata.json is spoilt.
    """
    if not adapters or not (adapters[0] / _METADATA).is_file():
        return {}
    table = _metadata(adapters[0] / _METADATA)
    is_same = table.get("evaluation", {}).get("dataset") == dataset
    template = table.get("template") if is_same else table.get("templates", {}).get(dataset)
    return {} if template is None else {"template": template}


def beside(metadata: Mapping[str, Any]) -> list[str]:
    """Return the methods of the adapters that stand beside PEFT's files alone, by name."""
    described = metadata.get("extra")
    recipes = described.values() if isinstance(described, dict) else ()
    apart = (one for one in recipes if isinstance(one, dict) and one.get("converted") is not True)
    return sorted({str(one.get("method")) for one in apart})


def _metadata(path: Path) -> dict[str, Any]:
    """Read metadata.json and check the keys that decide something here."""
    table = read_json(path)
    if not isinstance(table.get("evaluation", {}), dict):
        raise InputFault(f"{path}: evaluation: must be a table")
    if not isinstance(table.get("template"), str | None):
        raise InputFault(f"{path}: template: must be a text or null")
    templates = table.get("templates", {})
    if not isinstance(templates, dict) or not all(isinstance(text, str) for text in templates.values()):
        raise InputFault(f"{path}: templates: must be a table of texts")
    names = table.get("labels") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputFault(f"{path}: labels: must be a list of texts")
    return table
