"""Attach planned adapters to a network's linear layers and its residual stream."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.toml.binding import bind
from model.adapters.adapter import AdapterKind, PlannedSite
from model.adapters.rematerialisation import NormEpsilons
from model.injection.attachment import Attachment
from model.injection.layer_input import LayerInput, LayerReader
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.injection.residual_stream import Stream
from model.injection.shortcut_attachment import ShortcutAttachment
from model.network.family import Family
from model.plan.adapter_config import AdapterConfig
from model.plan.shortcut_toml import site_exists
from model.site import SHARED_INPUT, SHORTCUT_ROLES, Site, SiteKey


def locate(network: nn.Module, family: Family, layers: int) -> dict[SiteKey, Site]:
    """Return every linear site of the network, in order."""
    sites = {}
    for layer in range(layers):
        for role in family.roles:
            key = SiteKey(layer, role)
            linear = _linear(network, family.path(key))
            sites[key] = Site(key, family.path(key), linear.in_features, linear.out_features)
    return {key: sites[key] for key in sorted(sites)}


def locate_stream(stream: Stream) -> dict[SiteKey, Site]:
    """Return every place of the residual stream, in order: 4 L - 1 of them."""
    keys = (SiteKey(layer, role) for layer in range(len(stream.layers)) for role in SHORTCUT_ROLES)
    return {key: stream.site(key) for key in keys if site_exists(key)}


def attach(
    network: nn.Module,
    sites: Mapping[SiteKey, Site],
    configs: Mapping[SiteKey, AdapterConfig],
    seed: int,
    where: str,
    stream: Stream | None = None,
) -> dict[SiteKey, Attachment]:
    """Build one adapter for each planned site and attach it, switched on or off as planned.

    Args:
        network: the host; its state-dict keys do not change.
        sites: all sites of the network.
        configs: the plan's configuration of each site with a rank above zero.
        seed: the run's seed; each adapter's start depends on it and the site alone.
        where: the plan's file, named in faults.
        stream: the network's layers, for kinds that sit in the residual stream.

    Raises:
        InputFault: when a kind refuses its keys, or B is asked for in a layout the host does not have.
    """
    attachments: dict[SiteKey, Attachment] = {}
    linears: dict[SiteKey, LinearAttachment] = {}
    epsilons = NormEpsilons(network)
    readers: dict[SiteKey, LayerReader] = {}
    for method in sorted({config.method for config in configs.values()}):
        kind: AdapterKind = kinds.load(kinds.ADAPTERS, method)
        chosen = {key: config for key, config in configs.items() if config.method == method}
        planned = [_planned(sites[key], config, kind, where) for key, config in chosen.items()]
        for key, adapter in kind.build(planned, seed).items():
            if kind.place == "stream":
                assert stream is not None, "shortcuts sit in the network's layers"
                attachments[key] = ShortcutAttachment(sites[key], stream.layers[key.layer], adapter)
            else:
                linear = _linear(network, sites[key].path)
                linears[key] = LinearAttachment(sites[key], linear, adapter, kind.fused_forward, epsilons)
                attachments[key] = linears[key]
                if kind.layer_reader is not None:
                    readers[key] = kind.layer_reader(adapter)
            attachments[key].enabled = not chosen[key].disabled
            attachments[key].strength = chosen[key].importance
    share_inputs(linears, SHARED_INPUT)
    _read_layers(network, linears, readers)
    return {key: attachments[key] for key in sorted(attachments)}


def _read_layers(
    network: nn.Module, linears: Mapping[SiteKey, LinearAttachment], readers: Mapping[SiteKey, LayerReader]
) -> None:
    """Hand each layer's input to what of its adapters reads it."""
    for number in sorted({key.layer for key in readers}):
        keys = [key for key in readers if key.layer == number]
        found = {id(readers[key]): readers[key] for key in keys}  # linears may share one
        assert isinstance(network, PreTrainedModel)
        hook = LayerInput(network, number, list(found.values()))
        for key in keys:
            linears[key].on_detach = hook.remove


def _linear(network: nn.Module, path: str) -> nn.Linear:
    """Return the linear layer at a dotted path.

    Raises:
        TypeError: for a module of another kind.
    """
    module = network.get_submodule(path)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{path}: adapters sit at linear layers, this is a {type(module).__name__}")
    return module


def check_keys(configs: Mapping[SiteKey, AdapterConfig], where: str) -> None:
    """Bind every configuration's further keys to its kind's options, before weights are read.

    Raises:
        InputFault: naming file, site and key, or the method that has no adapters for single heads.
    """
    for key, config in configs.items():
        kind: AdapterKind = kinds.load(kinds.ADAPTERS, config.method)
        bind(kind.options, config.extra, f"{where}: {key}")
        if config.heads and not kind.by_head:
            raise InputFault(
                f"{where}: {key}: method '{config.method}' has no adapters for single heads;"
                " plan the projection as a whole, with granularity 'layer'"
            )


def check_tables(tables: Mapping[str, AdapterConfig], where: str) -> None:
    """Bind the further keys of tables, also of those with r = 0 or a role that the network lacks.

    Args:
        tables: name of a table -> its configuration.
        where: the file.

    Raises:
        InputFault: naming file, table and key.
    """
    for name, config in tables.items():
        bind(kinds.load(kinds.ADAPTERS, config.method).options, config.extra, f"{where}: [{name}]")


def _planned(site: Site, config: AdapterConfig, kind: AdapterKind, where: str) -> PlannedSite:
    if config.fan_in_fan_out:
        raise InputFault(
            f"{where}: fan_in_fan_out: {site.path} stores its weight as (out, in), not transposed"
        )
    return PlannedSite(site, config, bind(kind.options, config.extra, f"{where}: {site.key}"))
