"""The directory of an adapter as far as it can be read without torch: tables, shapes, training task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.runs.adapter_record import adapter_place, own_record
from configs.runtime.faults import InputFault
from configs.schema.base_dtype import quantizer_faults
from configs.schema.options import QUANTIZED_DTYPES
from model.exchange.adapter_config import FACTOR, PREFIX, config_faults, dtype_faults, read_config
from model.network.family import Family
from model.tensors.safetensors_header import TensorInfo, read_header

_CONFIG, _TENSORS, _METADATA = "adapter_config.json", "adapter_model.safetensors", "metadata.json"
_OTHER_TENSORS = {
    "adapter_model.bin": "; adapter_model.bin is pickle-based and not read: load and save it with PEFT",
    "adapters.safetensors": "; adapters.safetensors is MLX's form: convert it to PEFT's first",
}
"""Files in which other programs keep an adapter's tensors -> what to do."""
_READS_STREAM = ("q_proj", "k_proj", "v_proj", "w1", "gate")
"""Roles whose input has the width of the hidden states."""
_NO_HEAD = ("lora_", "vera_")
_OBJECTIVES = {
    "CAUSAL_LM": "language_modeling",
    "SEQ_CLS": "classification",
    "causal_language_modeling": "language_modeling",
    "summarization": "language_modeling",
    "classification": "classification",
}
BASES = ("float32", *QUANTIZED_DTYPES)
"""Values of `--base-dtype` in tools."""

TASKS = ("classification", "causal_language_modeling", "summarization")
"""Values of `--task`: what a network with an adapter is used for."""


@dataclass(frozen=True)
class AdapterFiles:
    """What the directory of an adapter holds, tensors as their shapes only.

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
        """The shapes of the tensors that are no low-rank factors."""
        return {
            name: info.shape
            for name, info in self.tensors.items()
            if not any(word in name for word in _NO_HEAD)
        }

    @property
    def template(self) -> str | None:
        """The prompt template the adapter was trained with."""
        return self.metadata.get("template")


def find_adapter(path: Path, flag: str) -> Path:
    """Return the directory of an adapter, which may be given by the directory of its run.

    Raises:
        InputFault: naming the flag.
    """
    directory = adapter_place(path)
    if (directory / _CONFIG).is_file():
        return directory
    raise InputFault(f"{flag}: '{path}' is neither an adapter (it holds no {_CONFIG}) nor a run with one")


def read_files(path: Path, flag: str) -> AdapterFiles:
    """Read the tables of an adapter, or of a run's adapter, and the header of its tensor file.

    Raises:
        InputFault: naming the flag or the file.
    """
    directory = find_adapter(path, flag)
    if not (directory / _TENSORS).is_file():
        others = [text for name, text in _OTHER_TENSORS.items() if (directory / name).is_file()]
        raise InputFault(f"{flag}: {directory} holds no {_TENSORS}{others[0] if others else ''}")
    config, tensors = read_config(directory / _CONFIG), read_header(directory / _TENSORS)
    return AdapterFiles(directory, config, _metadata(directory), tensors)


def checked_files(path: Path, flag: str) -> AdapterFiles:
    """Read an adapter as `read_files`, and refuse one that cannot be loaded here.

    Raises:
        InputFault: a line for each fault of adapter_config.json, and for a tensor of integers.
    """
    files = read_files(path, flag)
    faults = config_faults(files.config, str(files.path / _CONFIG))
    lines = [*faults, *dtype_faults(files.tensors, str(files.path / _TENSORS))]
    if lines:
        raise InputFault(*lines)
    return files


def require_fit(files: AdapterFiles, config: Mapping[str, Any], family: Family) -> None:
    """Refuse an adapter of another network, as far as names and shapes without the network show it.

    Args:
        files: the adapter.
        config: the network's config.json.
        family: its family.

    Raises:
        InputFault: naming the first module that does not fit.
    """
    layers, paths = config.get("num_hidden_layers"), {path: role for role, path in family.roles.items()}
    before, _, after = family.layer.partition("{layer}")
    for name, info in sorted(files.tensors.items()):
        match = FACTOR.match(name.removeprefix(PREFIX))
        if not match or not match["module"].startswith(before):
            continue
        number, _, inner = match["module"].removeprefix(before).partition(".")
        role = paths.get(inner.removeprefix(after.removeprefix(".")))
        if role is None or not number.isdecimal():
            what = (
                f"{match['module']} is no adaptable linear layer of this network ({config.get('model_type')})"
            )
            raise InputFault(f"{files.path}: {what}")
        if type(layers) is int and int(number) >= layers:
            raise InputFault(f"{files.path}: {match['module']}: this network has {layers} layers")
        width = config.get("hidden_size")
        reads_stream = match["factor"] == "A" and role in _READS_STREAM and len(info.shape) == 2
        if reads_stream and type(width) is int and info.shape[1] != width:
            what = f"made for {info.shape[1]} features, this network has {width}"
            raise InputFault(f"{files.path}: {match['module']}: {what}")
    if not any(name.startswith(f"{PREFIX}{before}") for name in files.tensors) and not files.metadata:
        found = min(files.tensors, default="nothing")
        raise InputFault(f"{files.path}: has {found}, no tensor of '{before}...', the layers of this network")


def require_task(files: AdapterFiles, served: str, *, trains: bool) -> None:
    """Refuse an adapter for a task of another kind.

    Args:
        files: the adapter.
        served: the objective of the data set.
        trains: whether the action trains; a language model's adapter may start a classifier.

    Raises:
        InputFault: naming task_type.
    """
    task = files.config.get("task_type")
    known = _OBJECTIVES.get(task) if isinstance(task, str) else None
    language = {known, "language_modeling" if served in ("language_modeling", "multiple_choice") else served}
    differs = known is not None and len({one == "language_modeling" for one in language}) > 1
    if differs and not (trains and known == "language_modeling"):
        raise InputFault(f"{files.path / _CONFIG}: task_type: {task} does not fit a data set for {served}")


def objective(files: AdapterFiles, task: str | None) -> str:
    """Return the objective of the network with this adapter: language_modeling, classification or regression.

    Args:
        files: the adapter's; they decide where they record a task.
        task: the value of `--task`; needed where the files record none.

    Raises:
        InputFault: when neither gives a task, or the two contradict each other.
    """
    recorded = files.metadata.get("evaluation", {}).get("task") or files.config.get("task_type")
    found = _OBJECTIVES.get(recorded) if isinstance(recorded, str) else None
    given = None if task is None else _OBJECTIVES[task]
    served = found or given
    if served is None:
        raise InputFault(f"--task: required, {files.path} does not record what it was trained for")
    if given not in (None, served):
        raise InputFault(f"--task: {files.path} was trained for {recorded}, got '{task}'")
    if served == "classification" and not labels(files):
        raise InputFault(f"--task: {files.path} holds no head, so it is no classifier")
    return "regression" if served == "classification" and len(labels(files)) == 1 else served


def labels(files: AdapterFiles) -> tuple[str, ...]:
    """Return the class names: the recorded ones, else `LABEL_n` by the rows of the head."""
    recorded = files.metadata.get("labels")
    if recorded:
        return tuple(recorded)
    matrices = {name: shape[0] for name, shape in files.head.items() if len(shape) == 2}
    rows = [count for name, count in matrices.items() if "pooler" not in name and "embed" not in name]
    return tuple(f"LABEL_{number}" for number in range(min(rows, default=0)))


def base_format(files: AdapterFiles, given: str | None) -> str:
    """Return the number format of the base's linear layers: the given one, else the one of the training run.

    Raises:
        InputFault: when it needs a package that is not installed.
    """
    recorded = files.metadata.get("evaluation", {}).get("base_dtype")
    word = given or (recorded if recorded in QUANTIZED_DTYPES else "float32")
    faults = quantizer_faults(
        word, "--base-dtype" if given else f"--adapter: {files.path}: trained on a base"
    )
    if faults:
        raise InputFault(*faults)
    return word


def trained_prompt(adapters: Sequence[Path], dataset: str) -> dict[str, str]:
    """Return the prompt template an adapter was trained with on a data set, as {"template": text} or {}.

    Args:
        adapters: directories in PEFT format, or runs with one; the first counts.
        dataset: the value of `--dataset`, also as the name of one part of a mixture.

    Raises:
        InputFault: when metadata.json is malformed.
    """
    table = _metadata(adapter_place(adapters[0])) if adapters else {}
    is_same = table.get("evaluation", {}).get("dataset") == dataset
    template = table.get("template") if is_same else table.get("templates", {}).get(dataset)
    return {} if template is None else {"template": template}


def extra_methods(metadata: Mapping[str, Any]) -> list[str]:
    """Return the names of the methods whose effect PEFT's files do not hold, not even converted."""
    extra = metadata.get("extra")
    recipes = extra.values() if isinstance(extra, dict) else ()
    missing = (one for one in recipes if isinstance(one, dict) and one.get("converted") is not True)
    names = {str(one.get("method")) for one in missing}
    return sorted(names | ({"shortcut"} if adds_norms(metadata) else set()))


def adds_norms(metadata: Mapping[str, Any]) -> bool:
    """Return whether shortcuts left further norms in the network, which stay where all of them are off."""
    wiring = metadata.get("shortcuts")
    return isinstance(wiring, dict) and bool(wiring.get("renormed"))


def _metadata(directory: Path) -> dict[str, Any]:
    """Read the metadata.json that this program wrote and check the keys that this module uses."""
    table, path = own_record(directory), directory / _METADATA
    if not isinstance(table.get("evaluation", {}), dict):
        raise InputFault(f"{path}: evaluation: must be a table")
    if not isinstance(table.get("template"), str | None):
        raise InputFault(f"{path}: template: must be a string or null")
    templates = table.get("templates", {})
    if not isinstance(templates, dict) or not all(isinstance(text, str) for text in templates.values()):
        raise InputFault(f"{path}: templates: must be a table of strings")
    names = table.get("labels") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputFault(f"{path}: labels: must be a list of strings")
    return table
