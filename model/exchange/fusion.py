"""Fuse trained LoRA sets: one adapter of kind `flow`, whose record names the sets by path and digest."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from configs.runs.adapter_record import FLOW, record_set
from configs.runtime.faults import InputFault
from model.exchange.adapter_directory import find_adapter
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.factors import Factors
from model.exchange.peft_format import PeftAdapter, read
from model.plan.flow_table import FlowSettings
from model.site import FLOW as KIND
from model.site import Site

_OF_THE_TASK = ("base_digest", "evaluation", "template", "labels")
"""What the last set's record says about the task, for the sum of several."""


def open_adapters(paths: Sequence[Path], flow: FlowSettings | None) -> PeftAdapter | None:
    """Read what `--adapter` names: one adapter, sets to fuse, or a Flow adapter and where its sets are now.

    Args:
        paths: directories of adapters or of their runs.
        flow: how several sets are fused; None with one adapter.

    Raises:
        InputFault: when a file cannot be used, or a set cannot be fused.
    """
    if not paths:
        return None
    found = [find_adapter(path, "--adapter") for path in paths]
    if len(found) == 1:
        return read(found[0])
    first = read(found[0], sets=found[1:])
    if FLOW in first.metadata:
        return first
    assert flow is not None
    return _fused([first, *map(read, found[1:])], found, flow)


def concatenated(sets: Sequence[PeftAdapter], weights: Sequence[float]) -> PeftAdapter:
    """Return one LoRA of the effect that the sets have with constant weights: sum_i w_i s_i B_i A_i.

    A's are put one below the other and B's, times w_i s_i, side by side, so that the ranks add up; nothing is
    rounded but that product. The head is that of the last set.

    Args:
        sets: plain LoRAs of one network.
        weights: one for each.

    Raises:
        InputFault: when a set cannot be fused.
    """
    parts: dict[str, list[Factors]] = {}
    for one, weight in zip(sets, weights):
        _require_fusible(one)
        for module, factors in one.modules.items():
            scaled = Factors(factors.a.float(), factors.b.float() * (factors.scale * weight), 1.0)
            parts.setdefault(module, []).append(scaled)
    modules = {
        module: Factors(torch.cat([one.a for one in found]), torch.cat([one.b for one in found], 1), 1.0)
        for module, found in parts.items()
    }
    last = sets[-1]
    kept = {name: last.metadata[name] for name in _OF_THE_TASK if name in last.metadata}
    return PeftAdapter(modules, head=last.head, metadata=kept, saved=last.saved)


def _fused(sets: Sequence[PeftAdapter], paths: Sequence[Path], flow: FlowSettings) -> PeftAdapter:
    """Return a Flow adapter at its start over plain LoRA sets; the head is that of the last set."""
    for one in sets:
        _require_fusible(one)
    names = flow.names or _names(paths)
    recorded = [vars(record_set(name, path)) for name, path in zip(names, paths)]
    modules = {module: factors for one in sets for module, factors in one.modules.items()}
    return PeftAdapter(
        modules,
        head=sets[-1].head,
        metadata={FLOW: {"sets": recorded}, "labels": sets[-1].metadata.get("labels")},
        source=" and ".join(str(path) for path in paths),
        sets=tuple(sets),
        fused=_recipe(flow, len(sets)),
    )


def _recipe(flow: FlowSettings, count: int) -> Recipe:
    """Return how each linear's adapter is built; the width is that of the network."""
    keys: dict[str, str | bool | int | float] = {
        "sets": count,
        "combine": flow.combine,
        "temperature": flow.temperature,
        "initial": flow.initial,
        "weights": ",".join(map(repr, flow.weights)),
    }
    return Recipe(KIND, 1, 1.0, keys=keys)


def _require_fusible(one: PeftAdapter) -> None:
    """Refuse a set that is no plain LoRA, or that has more than a head saved whole."""
    apart = sorted({extra.recipe.method for extra in one.extra.values() if not extra.recipe.converted})
    if apart:
        reason = "only LoRA, and what is exported as LoRA, can be fused"
        raise InputFault(f"--adapter: {one.source} has {', '.join(apart)}: {reason}")
    whole = sorted({name for name in one.head if "embed" in name or "lm_head" in name})
    if whole:
        raise InputFault(f"--adapter: {one.source} has {whole[0]} saved whole; sets share one vocabulary")


def _names(paths: Sequence[Path]) -> list[str]:
    names = [path.parent.name if path.name == "adapter" else path.name for path in paths]
    return names if len(set(names)) == len(names) else [f"{n}_{name}" for n, name in enumerate(names)]


def at_sites(adapter: PeftAdapter, sites: Iterable[Site], width: int) -> PeftAdapter:
    """Return a fresh Flow adapter with its recipe at every linear that any set adapts.

    Args:
        adapter: from `open_adapters`; any other one is returned as it is.
        sites: the linears of the network.
        width: D, of the layers' input.

    Raises:
        InputFault: for a module that is no site of the network, or of other widths.
    """
    if adapter.fused is None:
        return adapter
    by_path = {site.path: site for site in sites}
    for one in adapter.sets:
        for path, factors in one.modules.items():
            _require_site(one.source, path, by_path.get(path), factors)
    made = replace(adapter.fused, keys={**adapter.fused.keys, "width": width})
    extra = {str(by_path[path].key): Extra(made, {}) for path in adapter.modules}
    return replace(adapter, modules={}, extra=extra, fused=None)


def _require_site(source: str, path: str, site: Site | None, factors: Factors) -> None:
    if site is None:
        raise InputFault(f"{source}: {path} is no adaptable linear layer of this network")
    made, has = (factors.a.shape[1], factors.b.shape[0]), (site.in_features, site.out_features)
    if made != has:
        raise InputFault(
            f"{source}: {path}: made for {made[0]} -> {made[1]} features, this network has"
            f" {has[0]} -> {has[1]}"
        )
