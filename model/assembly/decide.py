"""Decide which adapter goes to which site, before anything of the network is changed.

Configurations decide; where none is given, the files of the adapter do.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from configs.runtime.faults import InputFault
from model.assembly.placement import Plans
from model.exchange.extra_adapters import recorded_wiring
from model.exchange.load import recorded_configs
from model.exchange.peft_format import PeftAdapter
from model.injection.attach import check_keys, check_tables, locate, locate_stream
from model.injection.residual_stream import NormMode, Stream, Wiring
from model.network.family import Family, dimensions
from model.network.modules_to_save import is_within, matching_modules
from model.plan.adapter_config import AdapterConfig
from model.plan.lora_toml import Plan
from model.plan.resolution import resolve
from model.plan.shortcut_toml import resolve_shortcuts
from model.site import Site, SiteKey


@dataclass(frozen=True)
class SiteConfigs:
    """The adapter configurations that one file gives.

    Args:
        configs: site -> the configuration of its adapter, of rank 1 or more; also of one that is disabled.
        source: the file or the adapter's directory, named in faults.
    """

    configs: Mapping[SiteKey, AdapterConfig]
    source: str


@dataclass(frozen=True)
class Decision:
    """What is attached where, and what trains whole.

    Args:
        linears: every linear site of the network.
        lora: the configurations of adapters at linear sites.
        shortcuts: the configurations of adapters in the residual stream.
        stream: the network's layers, where shortcuts sit in them; not wired yet.
        renormed: the sites that `stream` is to be wired for.
        modules_to_save: dotted names of the modules that train whole, the task's head left out.
        notes: lines to show once.
    """

    linears: Mapping[SiteKey, Site]
    lora: SiteConfigs
    shortcuts: SiteConfigs
    stream: Stream | None
    renormed: Collection[SiteKey]
    modules_to_save: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sites(self) -> dict[SiteKey, Site]:
        """Every site of the network, those of the residual stream included where shortcuts sit in it."""
        stream = {} if self.stream is None else locate_stream(self.stream)
        return {**self.linears, **stream}

    @property
    def configs(self) -> dict[SiteKey, AdapterConfig]:
        """All configurations, in the order of their sites."""
        configs = {**self.lora.configs, **self.shortcuts.configs}
        return {key: configs[key] for key in sorted(configs)}

    @property
    def methods(self) -> dict[SiteKey, str]:
        """The kind of adapter by site."""
        return {key: config.method for key, config in self.configs.items()}


def decide(
    network: PreTrainedModel,
    family: Family,
    head: Collection[str],
    plans: Plans,
    adapter: PeftAdapter | None = None,
    norm: NormMode | None = None,
) -> Decision:
    """Return what is to be attached to a network; the network stays as it is.

    Args:
        network: the host.
        family: its family.
        head: dotted names of the modules that train in any case.
        plans: the configurations, and which modules a search switched on or off.
        adapter: the files of an adapter, which decide where a configuration is missing.
        norm: how shortcuts join the residual stream; None: as the adapter records it, else `exact`.

    Raises:
        InputFault: when configurations, adapter and network do not fit each other.
    """
    decision = _from_plans(_from_adapter(network, family, plans, adapter, norm), network, family, plans)
    plans.check_history(decision.configs)
    decision = replace(
        decision,
        lora=_switched(decision.lora, plans.switches or {}),
        shortcuts=_switched(decision.shortcuts, plans.switches or {}),
    )
    for part in (decision.lora, decision.shortcuts):
        check_keys(part.configs, part.source)
    if plans.lora is not None:
        check_tables({"default": plans.lora.default, **plans.lora.tables}, str(plans.lora.path))
    adapted = {decision.sites[key].path for key in decision.configs}
    return replace(decision, modules_to_save=_modules_to_save(network, head, plans.lora, adapted, adapter))


def _from_adapter(
    network: PreTrainedModel, family: Family, plans: Plans, adapter: PeftAdapter | None, norm: NormMode | None
) -> Decision:
    """Return the sites of the network and what the files of an adapter decide by themselves."""
    layers = dimensions(network.config).layers
    wiring = _wiring(plans, adapter, norm)
    stream = None if wiring is None else Stream(network, family, layers, wiring.norm)
    linears = locate(network, family, layers)
    places = {} if stream is None else locate_stream(stream)
    source = "" if adapter is None else adapter.source
    renormed = () if wiring is None else _keys(wiring.renormed, places, source)
    recorded = {} if adapter is None else recorded_configs(adapter, {**linears, **places})
    return Decision(
        linears,
        SiteConfigs({key: config for key, config in recorded.items() if key in linears}, source),
        SiteConfigs({key: config for key, config in recorded.items() if key in places}, source),
        stream,
        renormed,
    )


def _from_plans(recorded: Decision, network: PreTrainedModel, family: Family, plans: Plans) -> Decision:
    """Return the decision with the configurations in place of an adapter's records."""
    size, decision = dimensions(network.config), recorded
    if plans.lora is not None:
        resolution = resolve(plans.lora, size, tuple(family.roles))
        lora = SiteConfigs(resolution.sites, str(plans.lora.path))
        decision = replace(decision, lora=lora, notes=tuple(resolution.notes))
    if plans.shortcuts is not None:
        configs = resolve_shortcuts(plans.shortcuts, size).sites
        shortcuts = SiteConfigs(configs, str(plans.shortcuts.path))
        decision = replace(decision, shortcuts=shortcuts, renormed=tuple(configs))
    return decision


def _wiring(plans: Plans, adapter: PeftAdapter | None, norm: NormMode | None) -> Wiring | None:
    """Return how shortcuts join the residual stream, None where neither plan nor adapter has any."""
    recorded = None if adapter is None else recorded_wiring(adapter)
    if adapter is None or recorded is None:
        return None if plans.shortcuts is None else Wiring(norm or "exact")
    if norm not in (None, recorded.norm):
        raise InputFault(
            f"--shortcut-norm: {adapter.source} was trained with '{recorded.norm}', got '{norm}'"
        )
    return recorded


def _keys(names: Collection[str], places: Mapping[SiteKey, Site], source: str) -> tuple[SiteKey, ...]:
    """Return the sites of the residual stream that an adapter names."""
    keys = {str(key): key for key in places}
    unknown = sorted(set(names) - set(keys))
    if unknown:
        raise InputFault(f"{source}: metadata.json: shortcuts: {unknown[0]} is no site of this network")
    return tuple(keys[name] for name in names)


def _switched(part: SiteConfigs, on: Mapping[SiteKey, bool]) -> SiteConfigs:
    """Return the configurations, enabled or disabled as a search decided where it did."""
    configs = {
        key: replace(config, disabled=not on[key]) if key in on else config
        for key, config in part.configs.items()
    }
    return replace(part, configs=configs)


def _modules_to_save(
    network: PreTrainedModel,
    head: Collection[str],
    plan: Plan | None,
    adapted: Collection[str],
    adapter: PeftAdapter | None,
) -> tuple[str, ...]:
    """Return the modules that train whole besides the head: those of the plan, else those of the adapter."""
    saved = {name.rpartition(".")[0] for name in (() if adapter is None else adapter.head)}
    saved = {name for name in saved if not is_within(name, head)}
    if plan is None:
        return tuple(name for name, _ in network.named_modules(remove_duplicate=False) if name in saved)
    found = matching_modules(network, plan.modules_to_save, adapted, str(plan.path))
    unknown = sorted(saved - set(found))
    if adapter is not None and unknown:
        raise InputFault(
            f"{adapter.source}: holds {unknown[0]} whole, which modules_to_save of {plan.path} does not name"
        )
    return tuple(name for name in found if not is_within(name, head))
