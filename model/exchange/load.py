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


def plan_of(file: PeftAdapter, sites: Mapping[SiteKey, Site], where: str) -> dict[SiteKey, AdapterConfig]:
    """Return the sites and ranks that an adapter's files decide by themselves.

    Raises:
        InputFault: naming the first module that is no site of the network, or whose widths differ.
    """
    by_path = {site.path: site for key, site in sites.items() if key.role in LINEAR_ROLES}
    configs = {}
    for module, factors in file.modules.items():
        site = by_path.get(module)
        if site is None:
            raise InputFault(f"{where}: {module} is no adaptable linear layer of this network")
        if (factors.a.shape[1], factors.b.shape[0]) != (site.in_features, site.out_features):
            raise InputFault(
                f"{where}: {module}: made for {factors.a.shape[1]} -> {factors.b.shape[0]} features,"
                f" this network has {site.in_features} -> {site.out_features}"
            )
        configs[site.key] = AdapterConfig(
            rank=factors.rank,
            alpha=factors.scale * factors.rank,
            dropout=0.0,
            adapter_name="default",
            disabled=False,
        )
    named = {str(key): key for key in sites}
    for name, extra in file.extra.items():
        if name not in named or (named[name] in configs) != extra.recipe.converted:
            raise InputFault(f"{where}: {name} is no place of this network, or is held twice")
        configs[named[name]] = config_of(named[name], extra.recipe, f"{where}: {name}")
    return configs


def load_adapter(
    attachments: Mapping[SiteKey, Attachment], methods: Mapping[SiteKey, str], file: PeftAdapter, where: str
) -> None:
    """Load an adapter's tensors into attachments that a plan has made.

    Raises:
        InputFault: when sites or ranks differ from the plan's.
    """
    converted = {name: one.recipe.method for name, one in file.extra.items() if one.recipe.converted}
    # A configuration may ask for a plain LoRA where the adapter is another kind with that effect.
    beside = {
        str(key): one
        for key, one in attachments.items()
        if load_kind(methods[key]).export is None or converted.get(str(key)) == methods[key]
    }
    in_peft = {key: one for key, one in attachments.items() if str(key) not in beside}
    taken = {one.site.path for name, one in beside.items() if name in converted}
    modules = {path: factors for path, factors in file.modules.items() if path not in taken}
    load_peft(in_peft, methods, replace(file, modules=modules), where)
    extra = {name: one for name, one in file.extra.items() if name in beside or name not in converted}
    if file.extra:
        load_extra(beside, methods, extra, where)


def load_peft(
    attachments: Mapping[SiteKey, Attachment],
    methods: Mapping[SiteKey, str],
    file: PeftAdapter,
    where: str,
) -> None:
    """Load a PEFT adapter's A and B into attachments that a plan has made.

    Raises:
        InputFault: when sites or ranks differ from the plan's, or an adapter cannot hold the factors.
    """
    paths = {attachment.site.path: key for key, attachment in attachments.items()}
    on = {path for path, key in paths.items() if attachments[key].active}
    odd = sorted((set(file.modules) - set(paths)) | (on - set(file.modules)))
    if odd:
        raise InputFault(f"{where}: its sites differ from the LoRA configuration's, first at {odd[0]}")
    for path, key in paths.items():
        if path not in file.modules:  # off, and left out of the file
            continue
        factors, adapter = file.modules[path], attachments[key].adapter
        if factors.rank != adapter.rank:
            raise InputFault(
                f"{where}: {path}: rank {factors.rank}, the LoRA configuration says {adapter.rank}"
            )
        kind, strength = load_kind(methods[key]), attachments[key].strength
        if kind.load is None:
            raise InputFault(f"{where}: {path}: '{methods[key]}' cannot hold the factors of a LoRA")
        try:
            # The file's scale holds the strength it was trained with; the attachment multiplies by its own.
            kind.load(adapter, factors.a, factors.b, factors.scale / (strength or 1.0))
        except ValueError as refusal:
            raise InputFault(f"{where}: {path}: {refusal}") from None


def attach_peft(
    network: nn.Module,
    sites: Mapping[SiteKey, Site],
    file: PeftAdapter,
    where: str,
    stream: Stream | None = None,
) -> dict[SiteKey, Attachment]:
    """Attach what an adapter's files name, at the sites they name, and load it, with its head."""
    configs = plan_of(file, sites, where)
    attachments = attach(network, sites, configs, 0, where, stream)
    device = next(network.parameters()).device
    for attachment in attachments.values():
        attachment.to(device)
    load_adapter(attachments, {key: config.method for key, config in configs.items()}, file, where)
    load_head(network, file, where)
    return attachments


def load_head(network: nn.Module, file: PeftAdapter, where: str) -> None:
    """Copy the tensors an adapter saves whole into the network.

    Raises:
        InputFault: when the network has no such tensor.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for name, value in file.head.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputFault(f"{where}: {name}: the network has no such tensor of shape {tuple(value.shape)}")
        with torch.no_grad():
            parameters[name].copy_(value)
