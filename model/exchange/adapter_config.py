"""Check adapter_config.json against the tensors of its adapter, without torch.

Source: the configuration classes of huggingface/peft 0.21 and the way their tuners read names and patterns.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import regex

from configs.runtime.faults import InputFault
from model.network.source_files import read_json
from model.tensors.safetensors_header import REAL, TensorInfo

PREFIX = "base_model.model."
"""What PEFT puts before the names of the base's modules."""
FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight$")
"""The name of a LoRA's factor, without the prefix."""
METHODS = ("LORA", "VERA", "ADALORA")
"""Values of `peft_type` that are read; the last two become a LoRA of the same effect."""

OWN_TYPE = "LORA_RESEARCH"
"""`peft_type` of adapters that PEFT cannot represent."""
_MERGE = "merge it into its base with PEFT's merge_and_unload and load the result"
_TASKS = (
    "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"
)  # fmt: skip
_SWITCHES = ("use_rslora", "fan_in_fan_out", "inference_mode", "use_dora", "lora_bias", "ensure_weight_tying")
_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
_KNOWN = {
    *_SWITCHES,
    *_UNSUPPORTED,
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "bias", "modules_to_save"),
    *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    *("megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("qalora_group_size", "runtime_config", "requires"),
    *("projection_prng_key", "save_projection", "vera_dropout", "d_initial", "init_weights"),
    *("target_r", "init_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
}
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base unchanged; others (PiSSA, OLoRA, LoftQ, …) change it."""
_LARGEST_ALPHA = 1e30
_SECONDS = 0.2
"""Time for one match of a pattern; a longer one backtracks without end."""


def read_config(path: Path) -> dict[str, Any]:
    """Read adapter_config.json; a key that occurs twice is refused.

    What this program writes for adapters that PEFT cannot represent is returned as if it were PEFT's.

    Raises:
        InputFault: naming the file, and the key.
    """
    table = read_json(path, unique=True)
    if table.get("peft_type") != OWN_TYPE:
        return table
    lora, requires = table.pop("lora", None), table.get("requires")
    if not isinstance(lora, dict) or not isinstance(requires, list) or not all(map(_is_name, requires)):
        raise InputFault(f"{path}: must have a table 'lora' and a list 'requires' of file names")
    return table | lora | {"peft_type": "LORA"}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value == Path(value).name


def config_faults(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield a line for each key that is malformed, or that gives the tensors a meaning not supported here.

    Args:
        config: the content of adapter_config.json.
        where: its path.
    """
    kind = config.get("peft_type")
    if kind not in METHODS:
        what = f"peft_type: must be one of {', '.join(METHODS)}, got {kind!r}"
        yield f"{where}: {what}; convert it with PEFT's save_as_lora, or {_MERGE}"
        return
    for key in (name for name, value in config.items() if name not in _KNOWN and value):
        near = get_close_matches(key, _KNOWN, n=1, cutoff=0.8)
        if near:
            yield f"{where}: {key}: unknown key; did you mean '{near[0]}'?"
    for key in _SWITCHES:
        if not isinstance(config.get(key), bool | None):
            yield f"{where}: {key}: must be true or false, got {config[key]!r}"
    yield from _meaning_faults(config, where)
    yield from _name_faults(config, where)
    rank, alpha = (_is_rank, "a whole number above 0"), (_is_alpha, "a finite number")
    if kind == "LORA":
        yield from _number_faults(config, where, "r", *rank)
        yield from _pattern_faults(config, where, "rank_pattern", *rank)
    if kind != "VERA":
        yield from _number_faults(config, where, "lora_alpha", *alpha)
    if kind == "LORA":
        yield from _pattern_faults(config, where, "alpha_pattern", *alpha)


def _meaning_faults(config: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield the faults of keys that give the tensors another meaning."""
    for key in _UNSUPPORTED:
        if config.get(key) and isinstance(config[key], bool) is (key in _SWITCHES):
            yield f"{where}: {key}: not supported, got {config[key]!r}; {_MERGE}"
    if config.get("bias", "none") != "none":
        yield f"{where}: bias: only 'none' is supported, got {config['bias']!r}; {_MERGE}"
    start = config.get("init_lora_weights")
    if not any(start is word or start == word for word in _STARTS):
        yield f"{where}: init_lora_weights: not supported, {start!r} changes the base's weights"
    if config.get("task_type") not in (None, *_TASKS):
        yield f"{where}: task_type: must be one of {', '.join(_TASKS)}, got {config['task_type']!r}"


def _name_faults(config: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, allows_text in (("target_modules", True), ("exclude_modules", True), ("modules_to_save", False)):
        value = config.get(key)
        is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if not (value is None or is_list or (allows_text and isinstance(value, str))):
            what = "a list of names or a pattern" if allows_text else "a list of names"
            yield f"{where}: {key}: must be {what}, got {value!r}"


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST_ALPHA


def _number_faults(
    config: Mapping[str, Any], where: str, key: str, is_allowed: Callable[[Any], bool], allowed: str
) -> Iterator[str]:
    if not is_allowed(config.get(key)):
        yield f"{where}: {key}: must be {allowed}, got {config.get(key)!r}"


def _pattern_faults(
    config: Mapping[str, Any], where: str, key: str, is_allowed: Callable[[Any], bool], allowed: str
) -> Iterator[str]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        yield f"{where}: {key}: must be a table of patterns, got {patterns!r}"
        return
    for pattern, value in patterns.items():
        if not is_allowed(value):
            yield f"{where}: {key}: {pattern}: must be {allowed}, got {value!r}"
        try:
            regex.compile(pattern)
        except regex.error as error:
            yield f"{where}: {key}: {pattern}: no valid pattern: {error}"


def value_of(config: Mapping[str, Any], key: str, module: str, where: str) -> Any:
    """Return the rank or alpha of a module: that of the first pattern that matches the end of its name.

    Args:
        config: the content of adapter_config.json.
        key: r or lora_alpha.
        module: the module's full name.
        where: the path of the file.

    Raises:
        InputFault: naming a pattern that takes too long to match.
    """
    pattern_key = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]
    for pattern, value in (config.get(pattern_key) or {}).items():
        if _matches(rf"(.*\.)?({pattern})$", module, f"{where}: {pattern_key}: {pattern}"):
            return value
    return config.get(key)


def rank_and_scale(config: Mapping[str, Any], module: str, where: str) -> tuple[int, float]:
    """Return the rank and the scale of a module, patterns included: alpha / R, or alpha / sqrt(R) for rsLoRA.

    Args:
        config: the content of adapter_config.json, without `config_faults`.
        module: the module's full name.
        where: the path of the file.

    Raises:
        InputFault: naming a pattern that takes too long to match.
    """
    rank, alpha = (value_of(config, key, module, where) for key in ("r", "lora_alpha"))
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _matches(pattern: str, name: str, where: str) -> bool:
    try:
        return regex.match(pattern, name, timeout=_SECONDS) is not None
    except TimeoutError:
        raise InputFault(f"{where}: the pattern takes too long to match '{name}'") from None
    except regex.error as error:
        raise InputFault(f"{where}: no valid pattern: {error}") from None


def is_target(config: Mapping[str, Any], module: str, where: str) -> bool:
    """Return whether target_modules names a module, as PEFT decides it.

    `exclude_modules` and, beside a list of targets, `layers_to_transform` take modules out.

    Args:
        config: the content of adapter_config.json.
        module: the module's full name.
        where: the path of the file.

    Raises:
        InputFault: when target_modules is no valid pattern, or takes too long to match.
    """
    targets, excluded = config.get("target_modules"), config.get("exclude_modules")
    if excluded and _is_named(excluded, module, f"{where}: exclude_modules"):
        return False
    if targets is None or targets == "all-linear":
        return True
    if not _is_named(targets, module, f"{where}: target_modules"):
        return False
    layers = config.get("layers_to_transform")
    if layers is None or isinstance(targets, str):
        return True
    number = re.search(r"\.(\d+)\.", module)
    return number is not None and int(number[1]) in (layers if isinstance(layers, list) else [layers])


def _is_named(names: str | list[str], module: str, where: str) -> bool:
    """Return whether a pattern matches a module whole, or a list has its name or the end of it."""
    if isinstance(names, str):
        return _matches(rf"(?:{names})$", module, f"{where}: {names}")
    return any(module == name or module.endswith(f".{name}") for name in names)


def unused_names(config: Mapping[str, Any], modules: list[str], where: str) -> Iterator[str]:
    """Yield a note for each key that is not used, and each name or pattern that no module of the adapter has.

    Args:
        config: the content of adapter_config.json.
        modules: full names of the adapter's modules.
        where: the path of the file.
    """
    strange = sorted(key for key, value in config.items() if key not in _KNOWN and value)
    if strange:
        yield f"{where}: unknown keys are not used: {', '.join(strange)}"
    targets = config.get("target_modules")
    if isinstance(targets, list):
        lost = [one for one in targets if not any(f".{module}".endswith(f".{one}") for module in modules)]
        if lost:
            yield f"{where}: target_modules: the adapter has no tensor of {', '.join(sorted(lost))}"
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        lost = [one for one in patterns if not any(_matches(rf"(.*\.)?({one})$", m, where) for m in modules)]
        if lost:
            yield f"{where}: {key}: matches no module: {', '.join(sorted(lost))}"


def dtype_faults(tensors: Mapping[str, TensorInfo], where: str) -> Iterator[str]:
    """Yield a line for the first tensor that is not of floating-point numbers.

    Args:
        tensors: what the header lists.
        where: the path of the file.
    """
    for name, info in sorted(tensors.items()):
        if info.dtype not in REAL:
            yield f"{where}: {name}: must be floating-point numbers, is {info.dtype}"
            return
