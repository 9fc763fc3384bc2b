"""Checks that need several options or the file system, but no heavy library.

They use `os.path` and not `pathlib`, which raises for names too long and directories without permission.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.command_line import strategy_checks
from configs.command_line.flags import SOURCE
from configs.runtime import kinds, slurm
from configs.runtime.console import rank
from configs.runtime.faults import InputFault, unknown
from configs.runtime.launcher import launch_faults
from configs.schema.base_dtype import quantizer_faults
from configs.schema.lookup import option_specs
from configs.schema.model_name import ModelName, model_name
from configs.schema.options import MIXTURE, QUANTIZED_DTYPES, Options
from configs.schema.settings import Layer

_FILES = ("lora_config", "shortcut_config", "realloc_hist_path")
_SEARCHING = ("imp-test", "train-dyrealloc")

_LOCAL_ENDINGS = (".gguf", ".pt", ".pth", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Case:
    """The options to check.

    Args:
        action: ACTION; None when it is missing or unknown.
        options: the effective options.
        layer: the given options with their sources.
        run: the run directory whose checkpoint is loaded, if any.
    """

    action: str | None
    options: Options
    layer: Layer
    run: Path | None

    def where(self, name: str) -> str:
        """Return the beginning of messages about an option."""
        setting = self.layer.settings.get(name)
        return setting.where if setting else option_specs()[name].flag

    def is_sound(self, *names: str) -> bool:
        """Return whether no fault was found in these options yet."""
        return not self.layer.touched.intersection(names)


def faults(case: Case) -> Iterator[str]:
    """Yield every fault in a set of options whose single values are valid."""
    yield from _adapter(case)
    yield from _dataset(case)
    yield from _model(case)
    yield from _paths(case)
    yield from _sources(case)
    yield from _resume(case)
    yield from _seeds(case)
    yield from _base(case)
    yield from _search(case)
    yield from _launch(case)
    yield from strategy_checks.faults(case.action, case.options, case.where)
    yield from _project_dir(case)


def _adapter(case: Case) -> Iterator[str]:
    options, where = case.options, case.where("adapter")
    if len(options.adapter) < 2:
        if "flow" in case.layer.tables:
            yield "[flow]: only with several --adapter, which it fuses"
        return
    if case.action not in ("train", "test", None):
        yield f"{where}: several are fused by train and test, not by {case.action}"
    for name in ("lora_config", "shortcut_config"):
        if getattr(options, name):
            yield f"{case.where(name)}: not with several --adapter, whose own files decide"
    if options.compile:
        yield f"{case.where('compile')}: not with several --adapter, whose gates keep a layer's input"


def _dataset(case: Case) -> Iterator[str]:
    word, known = case.options.dataset, (*kinds.names(kinds.TASKS), MIXTURE)
    if not word and case.is_sound("dataset"):
        yield "--dataset: required"
    elif word and word not in known:
        yield f"{case.where('dataset')}: {unknown('data set', word, known)}"
    directory = case.options.mmlu_dir
    if directory is not None and case.options.mmlu_mode is None:
        yield f"{case.where('mmlu_dir')}: only with --mmlu-mode"
    elif directory is not None and not os.path.isdir(directory):
        yield f"{case.where('mmlu_dir')}: no directory '{directory}'"


def _model(case: Case) -> Iterator[str]:
    word = case.options.model
    if not word:
        if case.is_sound("model"):
            yield "--model: required"
        return
    try:
        name = model_name(word, case.where("model"))
    except InputFault as refusal:
        yield from refusal.lines
        return
    if name.method != "lora_ags":
        yield from _without_shortcuts(case, word)
    yield from _plain(case, word) if name.method == "full" else _with_adapters(case, word, name)


def _without_shortcuts(case: Case, word: str) -> Iterator[str]:
    mode = case.options.dyrealloc_ags_mode
    if mode != "off":
        where = case.where("dyrealloc_ags_mode")
        yield f"{where}: '{mode}' needs a model with shortcuts (FAMILY_lora_ags), got --model {word}"
    if word.endswith("_lora") and case.options.shortcut_config:
        where = case.where("shortcut_config")
        yield f"{where}: '{word}' has no shortcuts; did you mean --model {word}_ags?"


def _base(case: Case) -> Iterator[str]:
    """Check what a quantized base needs, and what it cannot be combined with."""
    options, where = case.options, case.where("base_dtype")
    if options.base_dtype not in QUANTIZED_DTYPES:
        return
    yield from quantizer_faults(options.base_dtype, where)
    if options.compile:
        why = f"a base in {options.base_dtype} is dequantized in every product, which cannot be compiled"
        yield f"{case.where('compile')}: {why}"


def _search(case: Case) -> Iterator[str]:
    """Check the options of a search against each other."""
    options, settings = case.options, case.layer.settings
    if case.action != "train-dyrealloc":
        return
    if options.budget_params is not None and options.dyrealloc_ags_mode == "separated":
        where = case.where("budget_params")
        yield f"{where}: a single budget cannot be separated; did you mean --dyrealloc-ags-mode combined?"
    share = settings.get("turn_on_percentile")
    budget = settings.get("budget_params")
    if share and budget and share.source == budget.source:
        yield f"{budget.where}: replaces --turn-on-percentile; give only one of them"
    if options.compile:
        where = case.where("compile")
        yield f"{where}: not with train-dyrealloc: every reallocation would compile the layers again"


def _plain(case: Case, word: str) -> Iterator[str]:
    if case.action in _SEARCHING:
        yield f"{case.where('model')}: {case.action} needs adapters, got the plain model '{word}'"
    for name in ("lora_config", "shortcut_config", "adapter"):
        if getattr(case.options, name):
            yield f"{case.where(name)}: not for the plain model '{word}'; did you mean FAMILY_lora?"
    yield from strategy_checks.plain(case.options.strategy, word, case.where("strategy"))
    if case.options.base_dtype in QUANTIZED_DTYPES:
        where, dtype = case.where("base_dtype"), case.options.base_dtype
        yield f"{where}: '{dtype}' is for frozen weights, and the plain model '{word}' has none"
    if _is_missing(word):
        yield f"{case.where('model')}: no file or directory '{word}'"


def _with_adapters(case: Case, word: str, name: ModelName) -> Iterator[str]:
    options = case.options
    is_lost = options.load_type == "pl" and options.load and not os.path.isfile(options.load)
    has_plan = options.lora_config or options.adapter or is_lost  # a missing checkpoint is reported as such
    if not has_plan and case.is_sound("lora_config", "adapter", "load", "load_type"):
        yield f"--lora-config: required with '{word}', unless --adapter or the checkpoint of a run is given"
    has_shortcuts = options.shortcut_config or options.adapter or is_lost
    names = ("shortcut_config", "adapter", "load", "load_type")
    if name.method == "lora_ags" and not has_shortcuts and case.is_sound(*names):
        yield f"--shortcut-config: required with '{word}', unless --adapter has shortcuts"


def _paths(case: Case) -> Iterator[str]:
    options = case.options
    for name in _FILES:
        path = getattr(options, name)
        if path is not None and not os.path.isfile(path):
            yield f"{case.where(name)}: no file '{path}'"
    for name, paths in (("dataset_dir", [options.dataset_dir]), ("adapter", options.adapter)):
        for path in paths:
            if path is not None and not os.path.isdir(path):
                yield f"{case.where(name)}: no directory '{path}'"


def _sources(case: Case) -> Iterator[str]:
    options = case.options
    if not case.is_sound("load", "load_type"):
        return
    if options.load is None and options.load_type != "hf":
        yield f"{case.where('load_type')}: '{options.load_type}' needs --load"
    elif options.load is not None and options.load_type != "hf" and not _is_file(options.load):
        yield f"{case.where('load')}: no file '{options.load}'"
    elif options.load is not None and options.load_type == "hf" and _is_missing(options.load):
        yield f"{case.where('load')}: no file or directory '{options.load}'"
    if options.backbone_model is not None and _is_missing(options.backbone_model):
        yield f"{case.where('backbone_model')}: no file or directory '{options.backbone_model}'"


def _is_file(name: str) -> bool:
    return name.startswith("package:") or os.path.isfile(name)


def _is_missing(name: str) -> bool:
    """Return whether a name can only be a local path, but does not exist; hub names are `a` or `a/b`."""
    if name.startswith("package:") or os.path.exists(name):
        return False
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(_LOCAL_ENDINGS)


def _resume(case: Case) -> Iterator[str]:
    if not case.options.resume_training or not case.is_sound("load", "load_type"):
        return
    where, load = case.where("resume_training"), case.options.load
    if load is None or case.options.load_type != "pl":
        yield f"{where}: needs a run, --resume-training RUN or --load RUN/checkpoints/last.ckpt"
    elif case.run is None and _is_file(load):
        yield f"{where}: --load '{load}' is not RUN/checkpoints/FILE in a run directory with RUN/config.toml"


def _seeds(case: Case) -> Iterator[str]:
    if case.options.seeds is None or case.action is None:
        return
    where, one = case.where("seeds"), case.layer.settings.get("seed")
    actions = option_specs()["seeds"].option.actions
    if case.action not in actions:
        several = ", ".join(actions)
        yield f"{where}: only for {several}; {case.action} makes a single run, give --seed"
    elif one is not None and (one.source == SOURCE) == (case.layer.settings["seeds"].source == SOURCE):
        yield f"{where}: cannot be combined with seed; a run has one seed, a sweep several"
    if case.options.resume_training:
        yield f"{where}: cannot be combined with --resume-training; the same command resumes a sweep"


def _launch(case: Case) -> Iterator[str]:
    """Check how Python and the processes were started, and what a job needs that requeues itself."""
    options = case.options
    if sys.flags.optimize > 1:
        yield "PYTHONOPTIMIZE: transformers reads docstrings, which python -OO removes; set it to 1 at most"
    if case.is_sound("num_devices", "nodes"):
        yield from launch_faults(os.environ, options.num_devices, options.nodes)
    if options.auto_requeue and not (options.print_config or options.dry_run or options.resume_training):
        where = case.where("auto_requeue")
        if options.seeds is not None:
            yield f"{where}: cannot be combined with seeds; submit one job per seed"
        elif slurm.job() is None:
            yield f"{where}: not in a SLURM job (SLURM_JOB_ID is not set)"
        elif not slurm.can_requeue():
            yield f"{where}: scontrol, which requeues a job, is not on the PATH"
        elif not options.project and case.is_sound("project"):
            yield f"{where}: needs --project, so that the job finds its run again"


def _project_dir(case: Case) -> Iterator[str]:
    directory = case.options.project_dir
    existing = next(place for place in (directory, *directory.parents) if os.path.exists(place))
    if not os.path.isdir(existing):
        yield f"{case.where('project_dir')}: '{existing}' is not a directory"
        return
    is_one = case.options.seeds is None  # the directories of a sweep have other names
    run = is_one and case.options.project and directory / case.options.project
    place = run if case.options.resume_training and run and os.path.isdir(run) else existing
    if run and rank() == 0 and os.path.exists(run) and not case.options.resume_training:
        yield f"{case.where('project')}: '{run}' already exists, and a run directory is never overwritten"
    if not os.access(place, os.W_OK | os.X_OK):
        yield f"{case.where('project_dir')}: '{place}' is not writable"
