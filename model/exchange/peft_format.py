"""PEFT's format: read and write `adapter_model.safetensors` and `adapter_config.json`.

Source: the format of huggingface/peft, `LoraConfig` and `get_peft_model_state_dict`.
Differs: when ranks or scales differ between modules, B is multiplied by alpha / R and lora_alpha = r is
written, so that every reader computes scale 1, also one that ignores patterns; only keys that old releases
know are written.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from configs.runtime.faults import InputFault
from configs.runtime.files import sha256, write_bytes, write_text
from model.exchange.extra_tensors import EXTRA, KEY, Extra, read_extra, write_extra
from model.tensors.weights import load_tensors

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
METADATA = "metadata.json"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight$")
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
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base unchanged; others (PiSSA, OLoRA, LoftQ, …) change it."""
_LARGEST_ALPHA = 1e30


@dataclass(frozen=True)
class Factors:
    """The LoRA of a module: A (R, D_in), B (D_out, R) and the scale of B A."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Return R."""
        return self.a.shape[0]


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter in PEFT's format.

    Args:
        modules: full module name -> factors.
        head: full parameter name -> tensor of the modules that are trained and saved whole.
        metadata: content of metadata.json, which PEFT ignores; empty for an adapter of another tool.
        saved: full names of the modules that the tensors of `head` belong to; empty in one that was read.
        extra: site -> an adapter that PEFT has no form for.
        source: the directory it was read from, named in faults; empty where it was not read.
    """

    modules: Mapping[str, Factors]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    saved: Sequence[str] = ()
    extra: Mapping[str, Extra] = field(default_factory=dict)
    source: str = ""


def write(directory: Path, adapter: PeftAdapter, *, task_type: str, base: str, dropout: float) -> None:
    """Write the adapter's files into an existing directory.

    Args:
        directory: where the files go.
        adapter: what is written; the digests of the tensor files are added to its metadata.
        task_type: PEFT's name of the task, `SEQ_CLS` or `CAUSAL_LM`.
        base: name or path of the frozen base.
        dropout: the dropout of training, for readers that continue it.
    """
    uniform = len({(f.rank, f.scale) for f in adapter.modules.values()}) <= 1
    tensors: dict[str, Tensor] = {}
    for module, factors in adapter.modules.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = factors.a
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = factors.b if uniform else factors.b * factors.scale
    tensors |= {f"{_PREFIX}{name}": tensor for name, tensor in adapter.head.items()}
    content = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
    write_bytes(directory / TENSORS, content)
    config = _config(adapter, uniform, task_type=task_type, base=base, dropout=dropout)
    write_text(directory / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    metadata = {**adapter.metadata, "sha256": {TENSORS: sha256(directory / TENSORS)}}
    if adapter.extra:
        metadata[KEY] = write_extra(directory, adapter.extra)
        metadata["sha256"][EXTRA] = sha256(directory / EXTRA)
    write_text(directory / METADATA, json.dumps(metadata, indent=2, sort_keys=True) + "\n")


def _config(
    adapter: PeftAdapter, uniform: bool, *, task_type: str, base: str, dropout: float
) -> dict[str, Any]:
    ranks = {module: factors.rank for module, factors in adapter.modules.items()}
    largest = max(ranks.values(), default=1)
    alpha: float = largest
    if uniform and adapter.modules:
        alpha = next(iter(adapter.modules.values())).scale * largest
    patterns = {} if uniform else {f"^{re.escape(module)}$": rank for module, rank in sorted(ranks.items())}
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": largest,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": dropout,
        "target_modules": sorted(adapter.modules),
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "modules_to_save": sorted(adapter.saved) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def as_peft_has_it(adapter: PeftAdapter) -> PeftAdapter:
    """Return the adapter as PEFT reads it: with the LoRA in place of what was converted to it."""
    apart = {site: one for site, one in adapter.extra.items() if not one.recipe.converted}
    metadata = {name: value for name, value in adapter.metadata.items() if name != KEY}
    return replace(adapter, extra=apart, metadata=metadata)


def read(directory: Path, flag: str = "--adapter") -> PeftAdapter:
    """Read an adapter of PEFT or of this project, checked in full.

    Raises:
        InputFault: naming file and key or tensor, for a missing or changed file, a method other than LoRA, an
            option that is not supported, a rank other than the tensors', or a value that is not finite.
    """
    config = _json(directory / CONFIG, flag)
    where = str(directory / CONFIG)
    _require_plain_lora(config, where)
    path = directory / TENSORS
    if not path.exists():
        raise InputFault(f"{flag}: {directory} holds no {TENSORS}")
    metadata = _json(directory / METADATA, flag) if (directory / METADATA).exists() else {}
    digests = metadata.get("sha256", {})
    if not isinstance(digests, dict) or digests.get(TENSORS, sha256(path)) != sha256(path):
        raise InputFault(f"{path}: its bytes are not those that {METADATA} records")
    extra = read_extra(directory, metadata, directory / METADATA)
    modules, head = _split(load_tensors(path), path)
    if not modules and not extra:
        raise InputFault(f"{path}: holds no LoRA tensor")
    return PeftAdapter(
        _scaled(modules, config, directory), head, metadata, extra=extra, source=str(directory)
    )


def _require_plain_lora(config: Mapping[str, Any], where: str) -> None:
    """Refuse options that give the tensors another meaning, and malformed numbers."""
    if config.get("peft_type") != "LORA":
        raise InputFault(f"{where}: peft_type: must be LORA, got {config.get('peft_type')!r}")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise InputFault(f"{where}: {key}: not supported, got {config[key]!r}")
    if config.get("bias", "none") != "none":
        raise InputFault(f"{where}: bias: only 'none' is supported, got {config['bias']!r}")
    start = config.get("init_lora_weights")
    if not any(start is word or start == word for word in _STARTS):
        raise InputFault(f"{where}: init_lora_weights: not supported, {start!r} changes the base's weights")
    _require_numbers(config, where, "r", "rank_pattern", _is_rank, "a whole number above 0")
    _require_numbers(config, where, "lora_alpha", "alpha_pattern", _is_alpha, "a finite number")


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST_ALPHA


def _require_numbers(
    config: Mapping[str, Any],
    where: str,
    key: str,
    pattern_key: str,
    is_allowed: Callable[[Any], bool],
    allowed: str,
) -> None:
    """Check a number and those of the patterns that replace it for some modules."""
    patterns = config.get(pattern_key) or {}
    if not isinstance(patterns, dict):
        raise InputFault(f"{where}: {pattern_key}: must be a table of patterns, got {patterns!r}")
    for shown, value in [(key, config.get(key)), *((f"{pattern_key}: {k}", v) for k, v in patterns.items())]:
        if not is_allowed(value):
            raise InputFault(f"{where}: {shown}: must be {allowed}, got {value!r}")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputFault(f"{where}: {pattern_key}: {pattern}: no valid pattern: {error}") from None


def _split(
    tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith(_PREFIX):
            raise InputFault(f"{path}: tensor {name}: not of PEFT's form '{_PREFIX}...'")
        plain = name.removeprefix(_PREFIX)
        match = _FACTOR.match(plain)
        if match:
            modules.setdefault(match["module"], {})[match["factor"]] = tensor
        elif "lora_" in plain:
            raise InputFault(f"{path}: tensor {name}: no part of a plain LoRA")
        else:
            head[plain.replace(".modules_to_save.default.", ".")] = tensor
    return modules, head


def _scaled(
    modules: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], directory: Path
) -> dict[str, Factors]:
    result = {}
    for module, factors in modules.items():
        if set(factors) != {"A", "B"}:
            raise InputFault(
                f"{directory / TENSORS}: {module}: needs lora_A and lora_B, has {sorted(factors)}"
            )
        a, b = factors["A"], factors["B"]
        if a.ndim != 2 or b.ndim != 2 or not (a.is_floating_point() and b.is_floating_point()):
            raise InputFault(
                f"{directory / TENSORS}: {module}: lora_A and lora_B must be matrices of real numbers"
            )
        rank = _pattern(config.get("rank_pattern") or {}, module, config.get("r"))
        alpha = _pattern(config.get("alpha_pattern") or {}, module, config.get("lora_alpha"))
        if a.shape[0] != rank or b.shape[1] != rank:
            raise InputFault(
                f"{directory}: {module}: {CONFIG} says r = {rank}, {TENSORS} holds rank {a.shape[0]} (A) and"
                f" {b.shape[1]} (B)"
            )
        result[module] = Factors(a, b, alpha / (rank**0.5 if config.get("use_rslora") else rank))
    return result


def _pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of the module's name, as PEFT does."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _json(path: Path, flag: str) -> dict[str, Any]:
    if not path.exists():
        raise InputFault(f"{flag}: {path.parent} holds no {path.name}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputFault(f"{path}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputFault(f"{path}: must hold a JSON object")
    return content


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return max |ours - theirs| / max |ours|."""
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(torch.finfo(ours.dtype).tiny))
