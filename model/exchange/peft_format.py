"""PEFT's format: read and write `adapter_model.safetensors` and `adapter_config.json`.

Source: the format of huggingface/peft, `LoraConfig` and `get_peft_model_state_dict`.
Differs: when ranks or scales differ between modules, B is multiplied by its own alpha / R, all factors are
padded with zeros to the largest rank, and lora_alpha = r is written without patterns. Every reader then
computes scale 1: one with or without patterns (PEFT, vLLM), one that divides by a tensor's rank (llama.cpp).
The true ranks are in metadata.json. What PEFT cannot represent gets a configuration that it refuses.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from configs.runs.adapter_record import own_record, set_places
from configs.runtime.faults import InputFault
from configs.runtime.files import sha256, write_bytes, write_text
from model.exchange.adapter_config import (
    FACTOR,
    OWN_TYPE,
    PREFIX,
    config_faults,
    is_target,
    rank_and_scale,
    read_config,
    unused_names,
)
from model.exchange.adapter_directory import adds_norms
from model.exchange.extra_tensors import EXTRA, KEY, Extra, Recipe, read_extra, write_extra
from model.exchange.factors import Factors, padded, with_own_ranks
from model.exchange.foreign.other_methods import adalora_modules, adalora_scale, vera_modules
from model.tensors.weights import load_tensors

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
METADATA = "metadata.json"
RANKS = "ranks"
"""The key of metadata.json with the rank of each module, where they were padded to one."""
_INITIAL_RANK = 12
"""PEFT's default of `init_r`."""
_SHARED = ("base_model.vera_A", "base_model.vera_B")
_EMBEDDING = re.compile(r"^(?P<module>.+)\.lora_embedding_(?P<factor>[AB])(?:\.default)?$")
_WHOLE = re.compile(r"\.(?:modules_to_save(?:\.default)?|base_layer)(?=\.(?:weight|bias)$)")
_FROZEN_COPY = re.compile(r"\.original_module\.(?:weight|bias)$")


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
        shares_inputs: every A has the columns of the widest module; a module uses the first of them.
        notes: what of its configuration is not used, a line each.
        sets: the trained LoRA sets that an adapter of kind `flow` fuses.
        fused: how each linear of a fresh one is built; `modules` then names the linears.
    """

    modules: Mapping[str, Factors]
    head: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    saved: Sequence[str] = ()
    extra: Mapping[str, Extra] = field(default_factory=dict)
    source: str = ""
    shares_inputs: bool = False
    notes: tuple[str, ...] = ()
    sets: tuple["PeftAdapter", ...] = ()
    fused: Recipe | None = None


def write(
    directory: Path,
    adapter: PeftAdapter,
    *,
    task_type: str,
    base: str,
    dropout: float,
    compact: bool = False,
) -> None:
    """Write the adapter's files into an existing directory.

    Args:
        directory: where the files go.
        adapter: what is written; the digests of the tensor files are added to its metadata.
        task_type: PEFT's name of the task, `SEQ_CLS` or `CAUSAL_LM`.
        base: name or path of the frozen base.
        dropout: the dropout of training, for readers that continue it.
        compact: write the ranks as they are, as patterns that not every reader knows, instead of padding.
    """
    uniform = len({(f.rank, f.scale) for f in adapter.modules.values()}) <= 1
    largest = max((factors.rank for factors in adapter.modules.values()), default=1)
    tensors: dict[str, Tensor] = {}
    for module, factors in adapter.modules.items():
        b = factors.b if uniform else factors.b * factors.scale
        wide = padded(replace(factors, b=b), factors.rank if compact else largest)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = wide.a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = wide.b
    tensors |= {f"{PREFIX}{name}": tensor for name, tensor in adapter.head.items()}
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_bytes(directory / TENSORS, save(tensors, metadata={"format": "pt"}))
    ranks = {module: factors.rank for module, factors in sorted(adapter.modules.items())}
    config = _config(adapter, ranks if compact else {}, task_type=task_type, base=base, dropout=dropout)
    write_text(directory / CONFIG, json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n")
    metadata = {**adapter.metadata, "sha256": {TENSORS: sha256(directory / TENSORS)}}
    metadata.pop(RANKS, None)
    if not compact and len(set(ranks.values())) > 1:
        metadata[RANKS] = ranks
    if adapter.extra:
        metadata[KEY] = write_extra(directory, adapter.extra)
        metadata["sha256"][EXTRA] = sha256(directory / EXTRA)
    write_text(directory / METADATA, json.dumps(metadata, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _config(
    adapter: PeftAdapter, ranks: Mapping[str, int], *, task_type: str, base: str, dropout: float
) -> dict[str, Any]:
    """Return the content of adapter_config.json; `ranks` become patterns where they differ."""
    forms = {(factors.rank, factors.scale) for factors in adapter.modules.values()}
    largest = max((rank for rank, _ in forms), default=1)
    alpha: float = next(iter(forms))[1] * largest if len(forms) == 1 else largest
    patterns = ranks if len(forms) > 1 else {}
    head = {"peft_type": "LORA", "task_type": task_type, "base_model_name_or_path": base}
    table = {
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
    if all(one.recipe.converted for one in adapter.extra.values()) and not adds_norms(adapter.metadata):
        return head | table
    requires = [METADATA, *([EXTRA] if adapter.extra else [])]
    # PEFT knows no such type, and no other reader finds r and lora_alpha where it looks for them.
    return head | {"peft_type": OWN_TYPE, "requires": requires, "lora": table}


def as_peft_has_it(adapter: PeftAdapter) -> PeftAdapter:
    """Return the adapter as PEFT reads it: with the LoRA in place of what was converted to it."""
    apart = {site: one for site, one in adapter.extra.items() if not one.recipe.converted}
    metadata = {name: value for name, value in adapter.metadata.items() if name != KEY}
    return replace(adapter, extra=apart, metadata=metadata)


def read(directory: Path, flag: str = "--adapter", sets: Sequence[Path] = ()) -> PeftAdapter:
    """Read an adapter of PEFT or of this project, checked in full.

    Args:
        directory: its directory.
        flag: the option that named it.
        sets: where the sets are now that an adapter of kind `flow` fuses; empty: where they were.

    Raises:
        InputFault: naming file and key or tensor, for a missing or changed file, a method other than LoRA, an
            option that is not supported, a rank other than the tensors', or a value that is not finite.
    """
    config, path, where = read_config(directory / CONFIG), directory / TENSORS, str(directory / CONFIG)
    faults = list(config_faults(config, where))
    faults += [] if path.exists() else [f"{flag}: {directory} holds no {TENSORS}"]
    required = config.get("requires", ())
    faults += [f"{directory}: holds no {name}" for name in required if not (directory / name).exists()]
    if faults:
        raise InputFault(*faults)
    metadata = own_record(directory)
    if metadata and metadata["sha256"][TENSORS] != sha256(path):
        raise InputFault(f"{path}: its bytes are not those that {METADATA} records")
    extra = read_extra(directory, metadata, directory / METADATA)
    modules, head = _modules(load_tensors(path), config["peft_type"], path)
    if not modules and not extra:
        raise InputFault(f"{path}: holds no LoRA tensor")
    factors = with_own_ranks(
        _scaled(modules, config, directory), metadata.get(RANKS, {}), f"{directory / METADATA}: {RANKS}"
    )
    return PeftAdapter(
        factors,
        head,
        metadata,
        extra=extra,
        source=str(directory),
        shares_inputs=config["peft_type"] == "VERA",
        notes=tuple(unused_names(config, list(modules), where)) if modules and not metadata else (),
        sets=tuple(read(place) for place in set_places(metadata, str(directory / METADATA), sets)),
    )


def _modules(
    tensors: Mapping[str, Tensor], kind: str, path: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the factors of each module, and the tensors of modules that are saved whole by full name."""
    for name in tensors:
        if not name.startswith((PREFIX, *_SHARED)):
            raise InputFault(f"{path}: tensor {name}: not of PEFT's form '{PREFIX}...'")
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if kind == "VERA":
        modules, rest = vera_modules(plain, str(path))
    elif kind == "ADALORA":
        modules, rest = adalora_modules(plain, str(path))
    else:
        modules, rest = _split(plain, path)
    # A module trained whole is saved under up to three names; the trained values count, not the base's.
    trained = {name for name in rest if ".modules_to_save." in name}
    kept = {name: tensor for name, tensor in rest.items() if not _FROZEN_COPY.search(name)}
    ordered = sorted(kept, key=lambda name: name in trained)
    return modules, {_WHOLE.sub("", name): kept[name] for name in ordered}


def _split(
    tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = FACTOR.match(name)
        embedding = _EMBEDDING.match(name)
        if match:
            modules.setdefault(match["module"], {})[match["factor"]] = tensor
        elif embedding:  # delta is (B A)^T: a table has a row for each word
            other = {"A": "B", "B": "A"}[embedding["factor"]]
            modules.setdefault(embedding["module"], {})[other] = tensor.T
        elif "lora_" in name:
            raise InputFault(f"{path}: tensor {PREFIX}{name}: no part of a plain LoRA")
        else:
            rest[name] = tensor
    return modules, rest


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
        scale = _scale(module, (a.shape[0], b.shape[1]), config, directory)
        # With lora_alpha = 0 the adapter has no effect, and no rank has a scale of 0 here.
        result[module] = Factors(a, b, scale) if scale else Factors(a, torch.zeros_like(b), 1.0)
    return result


def _scale(module: str, ranks: tuple[int, int], config: Mapping[str, Any], directory: Path) -> float:
    """Return the scale of a module, after comparing the ranks of A and B with the configuration."""
    where, kind = str(directory / CONFIG), config["peft_type"]
    if kind == "VERA":
        return 1.0
    if kind == "ADALORA":
        if config["lora_alpha"] <= 0:
            raise InputFault(
                f"{where}: lora_alpha: {config['lora_alpha']}, in place of which PEFT's AdaLoRA"
                " takes the rank; convert it with PEFT's save_as_lora"
            )
        return adalora_scale(config["lora_alpha"], config.get("init_r", _INITIAL_RANK))
    if not is_target(config, module, where):
        raise InputFault(
            f"{where}: target_modules: does not name {module}, which {TENSORS} has; PEFT would ignore it"
        )
    rank, scale = rank_and_scale(config, module, where)
    if ranks != (rank, rank):
        raise InputFault(
            f"{directory}: {module}: {CONFIG} says r = {rank}, {TENSORS} holds rank {ranks[0]} (A) and"
            f" {ranks[1]} (B)"
        )
    return scale


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return max |ours - theirs| / max |ours|."""
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(torch.finfo(ours.dtype).tiny))
