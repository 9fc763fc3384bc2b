"""Load an adapter in PEFT's format, written by PEFT or by this project, into a network."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from configs.runtime.faults import InputFault
from model.exchange.extra_adapters import config_of, load_extra, load_kind
from model.exchange.peft_format import PeftAdapter
from model.injection.attach import attach
from model.injection.attachment import Attachment
from model.injection.residual_stream import Stream
from model.plan.adapter_config import AdapterConfig
from model.site import LINEAR_ROLES, Site, SiteKey


def recorded_configs(adapter: PeftAdapter, sites: Mapping[SiteKey, Site]) -> dict[SiteKey, AdapterConfig]:
    """Return the configuration of each site as the adapter's own files give it.

    Args:
        adapter: what the files hold.
        sites: every site of the network, those of the residual stream included where it has any.

    Raises:
        InputFault: naming the first module that is no site of the network, or whose widths differ.
    """
    by_path = {site.path: site for key, site in sites.items() if key.role in LINEAR_ROLES}
    configs = {}
    for module, factors in adapter.modules.items():
        site = by_path.get(module)
        if site is None:
            raise InputFault(f"{adapter.source}: {module} is no adaptable linear layer of this network")
        if (factors.a.shape[1], factors.b.shape[0]) != (site.in_features, site.out_features):
            raise InputFault(
                f"{adapter.source}: {module}: made for {factors.a.shape[1]} -> {factors.b.shape[0]} features,"
                f" this network has {site.in_features} -> {site.out_features}"
            )
        configs[site.key] = AdapterConfig(
            rank=factors.rank,
            alpha=factors.scale * factors.rank,
            dropout=0.0,
            adapter_name="default",
            disabled=False,
        )
    keys = {str(key): key for key in sites}
    for name, extra in adapter.extra.items():
        if name not in keys or (keys[name] in configs) != extra.recipe.converted:
            raise InputFault(f"{adapter.source}: {name} is no site of this network, or holds two adapters")
        configs[keys[name]] = config_of(keys[name], extra.recipe, f"{adapter.source}: {name}")
    return configs


def attach_peft(
    network: nn.Module, sites: Mapping[SiteKey, Site], adapter: PeftAdapter, stream: Stream | None = None
) -> dict[SiteKey, Attachment]:
    """Attach an adapter at the sites that its own files name, and load it.

    Args:
        network: the host, whose state-dict keys do not change.
        sites: every site of the network.
        adapter: what the files hold.
        stream: the network's layers, for shortcuts; wired by the caller.

    Returns:
        The attachments by site, on the network's device.

    Raises:
        InputFault: when the adapter does not fit the network.
    """
    configs = recorded_configs(adapter, sites)
    attachments = attach(network, sites, configs, 0, adapter.source, stream)
    device = next(network.parameters()).device
    for attachment in attachments.values():
        attachment.to(device)
    methods = {key: config.method for key, config in configs.items()}
    load_adapter(network, attachments, methods, adapter)
    return attachments


def load_adapter(
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    methods: Mapping[SiteKey, str],
    adapter: PeftAdapter,
) -> None:
    """Load an adapter's tensors into attachments that exist already, and its whole modules into the network.

    A method that PEFT has no form for takes its tensors from `extra.safetensors`, all others take A and B
    from PEFT's file. An adapter that was converted to a LoRA is in both files: `extra.safetensors` counts
    where the site's method is the adapter's own, PEFT's LoRA where the site asks for a plain LoRA.

    Args:
        network: the host.
        attachments: by site.
        methods: kind of adapter by site.
        adapter: what the files hold.

    Raises:
        InputFault: when sites, ranks or whole modules differ from those of the network and its attachments.
    """
    converted = {name: one.recipe.method for name, one in adapter.extra.items() if one.recipe.converted}
    from_extra = {
        str(key): one
        for key, one in attachments.items()
        if load_kind(methods[key]).export is None or converted.get(str(key)) == methods[key]
    }
    from_peft = {key: one for key, one in attachments.items() if str(key) not in from_extra}
    replaced = {one.site.path for name, one in from_extra.items() if name in converted}
    modules = {path: factors for path, factors in adapter.modules.items() if path not in replaced}
    load_factors(from_peft, methods, replace(adapter, modules=modules))
    if adapter.extra:
        extra = {
            name: one for name, one in adapter.extra.items() if name in from_extra or name not in converted
        }
        load_extra(from_extra, methods, extra, adapter.source)
    _fuse_sets(attachments, methods, adapter)
    load_whole_modules(network, adapter)


def _fuse_sets(
    attachments: Mapping[SiteKey, Attachment], methods: Mapping[SiteKey, str], adapter: PeftAdapter
) -> None:
    """Give the sets' factors to the adapters that fuse them."""
    for key, attachment in attachments.items():
        takes_sets = load_kind(methods[key]).takes_sets
        if takes_sets is not None:
            found = [one.modules.get(attachment.site.path) for one in adapter.sets]
            takes_sets(
                attachment.adapter, [None if one is None else (one.a, one.b, one.scale) for one in found]
            )


def load_factors(
    attachments: Mapping[SiteKey, Attachment], methods: Mapping[SiteKey, str], adapter: PeftAdapter
) -> None:
    """Load A (R, D_in) and B (D_out, R) of every module of PEFT's file into the attachment at its site.

    Raises:
        InputFault: when sites or ranks differ from the attachments', or a method cannot hold the factors.
    """
    where = adapter.source
    paths = {attachment.site.path: key for key, attachment in attachments.items()}
    on = {path for path, key in paths.items() if attachments[key].active}
    differing = sorted((set(adapter.modules) - set(paths)) | (on - set(adapter.modules)))
    if differing:
        raise InputFault(f"{where}: its sites differ from the LoRA configuration's, first at {differing[0]}")
    for path, key in paths.items():
        if path not in adapter.modules:  # off, and left out of the file
            continue
        factors, target = adapter.modules[path], attachments[key].adapter
        if factors.rank != target.rank:
            raise InputFault(
                f"{where}: {path}: rank {factors.rank}, the LoRA configuration says {target.rank}"
            )
        kind, strength = load_kind(methods[key]), attachments[key].strength
        if kind.load is None:
            raise InputFault(f"{where}: {path}: method '{methods[key]}' cannot hold the factors of a LoRA")
        try:
            # The file's scale contains the strength of training; the attachment multiplies by its own.
            kind.load(target, factors.a, factors.b, factors.scale / (strength or 1.0))
        except ValueError as refusal:
            raise InputFault(f"{where}: {path}: {refusal}") from None


def _misfit(name: str, ours: torch.Tensor | None, theirs: torch.Tensor) -> str:
    """Return why a tensor cannot be loaded."""
    shape = tuple(theirs.shape)
    is_vocabulary = name.split(".")[-2] in ("embed_tokens", "word_embeddings", "lm_head", "decoder")
    if ours is None or not is_vocabulary or ours.shape[1:] != theirs.shape[1:]:
        return f"the network has no such tensor of shape {shape}"
    return (
        f"has {shape[0]} rows, the network {ours.shape[0]}; if the vocabulary was extended, give a"
        " base saved with the extended one"
    )


def load_whole_modules(network: nn.Module, adapter: PeftAdapter) -> None:
    """Copy the tensors of the modules that an adapter saves whole, the task's head among them.

    Raises:
        InputFault: when the network has no such tensor.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, value in adapter.head.items():
        ours = parameters.get(name)
        if ours is None or ours.shape != value.shape:
            raise InputFault(f"{adapter.source}: {name}: {_misfit(name, ours, value)}")
        with torch.no_grad():
            parameters[name].copy_(value)
