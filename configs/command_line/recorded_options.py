"""Options that a checkpoint's run or an adapter recorded, and what a resumed run may not change."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.command_line.config_file import read_options
from configs.runs.adapter_record import FILE, adapter_place, own_record
from configs.runs.experiment import PLANS, edited_files
from configs.runtime import slurm
from configs.runtime.faults import InputFault, suggestion
from configs.schema.lookup import option_specs
from configs.schema.settings import Layer, Setting
from configs.schema.values import shown
from configs.toml.reader import read_document

EVALUATION = (
    "model",
    "dataset",
    "dataset_dir",
    "task",
    "mmlu_mode",
    "mmlu_dir",
    "backbone_model",
    "pretrained",
    "adapter",
    "lora_config",
    "shortcut_config",
    "shortcut_norm",
    "batch_size",
    "max_token_len",
    "max_bad_rows",
    "precision",
    "base_dtype",
    "attention",
    "seed",
)
"""The options that decide what an evaluation computes; `test` takes them from the checkpoint's run."""

_EXEMPT = (
    "load",
    "load_type",
    "resume_training",
    "project",
    "project_dir",
    "num_workers",
    "log_level",
    "config",
    "print_config",
    "dry_run",
    "auto_requeue",
)
_BASE = ("backbone_model", "pretrained", "lora_config", "shortcut_config", "shortcut_norm")
_PROMPTS = {"prompt", "template", "form"}
_OF_THE_RUN = ("load", "load_type", "resume_training", "project", "project_dir")


def run_directory(given: Mapping[str, Setting]) -> Path | None:
    """Return RUN when `--load RUN/checkpoints/X --load-type pl` is given and RUN has a config.toml."""
    if "load" not in given or "load_type" not in given or given["load_type"].value != "pl":
        return None
    checkpoint = Path(given["load"].value or "").absolute()
    run = checkpoint.parent.parent
    return run if os.path.isfile(checkpoint) and os.path.isfile(run / "config.toml") else None


def requeued(given: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings that resume the run of a requeued SLURM job.

    Empty on the first start, and when the job ended before its first checkpoint.
    """
    if not slurm.is_restarted() or "auto_requeue" not in given or not given["auto_requeue"].value:
        return {}
    if "project" not in given or given["project"].value is None:
        return {}
    parent = given["project_dir"].value if "project_dir" in given else option_specs()["project_dir"].default
    checkpoint = (parent / given["project"].value / "checkpoints" / "last.ckpt").absolute()
    if not os.path.isfile(checkpoint):
        return {}
    where = given["auto_requeue"].where
    values = {"load": str(checkpoint), "load_type": "pl", "resume_training": True}
    return {name: Setting(value, "requeued job", where) for name, value in values.items()}


def action_of(run: Path) -> str | None:
    """Return the action in a run's run.toml; None where that cannot be read."""
    try:
        return read_document(run / "run.toml", "--load").table.get("action")
    except InputFault:
        return None


def recorded_run(run: Path) -> Layer:
    """Read RUN/config.toml as the options of a resumed run.

    The run's base becomes `backbone_model`, its plans are the copies in RUN, and options of that one
    execution (`load`, `project` and so on) are left out.

    Raises:
        InputFault: when the file cannot be read as TOML.
    """
    layer = read_options(read_document(run / "config.toml", "--load"), "run")
    layer.faults += edited_files(run)
    settings = layer.settings
    base = settings.get("load")
    is_from_hub_format = "load_type" not in settings or settings["load_type"].value == "hf"
    if base and is_from_hub_format and "backbone_model" not in settings:
        settings["backbone_model"] = Setting(base.value, "run", base.where)
    if "pretrained" not in settings:
        settings["pretrained"] = Setting(_has_weights(settings), "run", "--load")
    for name, file in PLANS.items():
        if os.path.isfile(run / file):
            settings[name] = Setting(run / file, "run", str(run / file))
    for name in _OF_THE_RUN:
        settings.pop(name, None)
    return layer


def names_weights(load: str | None, model: str | None) -> bool:
    """Return the default of `pretrained`: whether --load or MODEL names weights."""
    word = model or ""
    return load is not None or "/" in word or not word.endswith(("_lora", "_lora_ags"))


def _has_weights(settings: Mapping[str, Setting]) -> bool:
    load, model = (settings[name].value if name in settings else None for name in ("load", "model"))
    return names_weights(load, model)


def without_training(recorded: Layer, action: str | None) -> Layer:
    """Keep the recorded options that an action takes from a checkpoint without resuming its run.

    For `test` these are all options that decide an evaluation (the adapter only where no plan gives the
    sites); for the other actions, the base and the plans.
    """
    if action != "test":
        return Layer({name: one for name, one in recorded.settings.items() if name in _BASE})
    kept = {name: setting for name, setting in recorded.settings.items() if name in EVALUATION}
    model = kept["model"].value if "model" in kept else None
    if "lora_config" in kept and ("shortcut_config" in kept or not (model or "").endswith("_lora_ags")):
        kept.pop("adapter", None)
    return Layer(kept, recorded.tables, recorded.faults, recorded.touched)


def place_of(run: Path) -> Layer:
    """Return project and project_dir from the run directory's present path."""
    where = "--load"
    return Layer(
        {
            "project": Setting(run.name, "run", where),
            "project_dir": Setting(run.parent, "run", where),
        }
    )


def changes(action: str | None, given: Layer, recorded: Layer, run: Path) -> list[str]:
    """Return a fault for every option, table key or action that differs from the run to be resumed."""
    faults = []
    began = action_of(run)
    if began not in (None, action):
        faults.append(f"ACTION: the run began with {began}, got {action}")
    for name, setting in given.settings.items():
        before = recorded.settings[name].value if name in recorded.settings else option_specs()[name].default
        if name in _EXEMPT or _is_same(name, before, setting.value, run):
            continue
        faults.append(_changed(setting.where, name, before, setting.value))
    for name, table in given.tables.items():
        old = recorded.tables.get(name, {})
        for key, value in table.items():
            if key not in old or old[key] != value:
                faults.append(_changed(f"[{name}]", f"{name}.{key}", old.get(key), value))
    return faults


def _changed(where: str, name: str, old: Any, new: Any) -> str:
    old, new = ("none" if value is None else shown(value) for value in (old, new))
    named = where if where.endswith(f": {name}") else f"{where}: {name}"
    return f"{named}: the run began with {old}, got {new}"


def _is_same(name: str, before: Any, now: Any, run: Path) -> bool:
    if name not in PLANS or before is None or now is None:
        return before == now
    try:
        return before == now or now.read_bytes() == (run / PLANS[name]).read_bytes()
    except OSError:
        return False


def recorded_adapter(adapter: Path, given: Layer) -> Layer:
    """Read the options of an adapter's evaluation: `evaluation` in its metadata.json, if present.

    Args:
        adapter: its directory, or that of its run.
        given: the user's options; with another data set the adapter's `[data]` is not used.

    Raises:
        InputFault: when `evaluation` is not an object.
    """
    adapter = adapter_place(adapter)
    path, layer = adapter / FILE, Layer()
    values = own_record(adapter).get("evaluation", {})
    if not isinstance(values, dict):
        raise InputFault(f"{path}: evaluation: must be an object")
    values = dict(values)
    table = values.pop("data", {})
    if not isinstance(table, dict):
        layer.faults.append(f"{path}: evaluation.data: must be an object")
    elif "dataset" not in given.settings or given.settings["dataset"].value == values.get("dataset"):
        # `prompt`, `template` and `form` exclude each other: a given one replaces any recorded one.
        replaced = _PROMPTS if given.tables.get("data", {}).keys() & _PROMPTS else set()
        kept = {key: value for key, value in table.items() if key not in replaced}
        layer.tables |= {"data": kept} if kept else {}
    for name, value in values.items():
        where = f"{path}: evaluation.{name}"
        if name not in EVALUATION:
            layer.faults.append(f"{where}: unknown key{suggestion(name, EVALUATION)}")
        elif value is not None:
            _take(layer, name, value, where)
    return layer


def _take(layer: Layer, name: str, value: Any, where: str) -> None:
    try:
        layer.settings[name] = Setting(option_specs()[name].kind.take(value), "adapter", where)
    except ValueError as refusal:
        layer.faults.append(f"{where}: {refusal}")
