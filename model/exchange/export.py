"""Take adapters out of a network and into one, in PEFT's format: every export is read back and compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.runtime.faults import InputFault
from configs.runtime.files import replacing_directory
from model.exchange.extra_adapters import config_of, load_extra, load_kind, wiring
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.peft_format import Factors, PeftAdapter, as_peft_has_it, largest_difference, read, write
from model.injection.attach import attach
from model.injection.attachment import Attachment
from model.injection.residual_stream import Stream
from model.network.modules_to_save import is_within
from model.plan.adapter_config import AdapterConfig
from model.site import LINEAR_ROLES, Site, SiteKey
from model.training.objective import Batch, inputs

_ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest relative difference of logits that folding the scale into B explains, by compute type.

What is read back stands in float32, as readers elsewhere keep it, also where the network computes in float64.
"""


def collect(
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    methods: Mapping[SiteKey, str],
    head: Sequence[str],
    metadata: Mapping[str, Any],
) -> PeftAdapter:
    """Return what is on, as PEFT sees it: the strength of an attachment goes into its scale.

    Kinds without PEFT's form go beside it as they are, kinds that are converted for it do both.
    """
    modules, extra = {}, {}
    for key, attachment in attachments.items():
        if not attachment.active:
            continue
        adapter, kind = attachment.adapter, load_kind(methods[key])
        if kind.export is not None:
            a, b, scale = kind.export(adapter)
            modules[attachment.site.path] = Factors(a, b, scale * attachment.strength)
        if kind.export is None or kind.converts:
            told = (methods[key], adapter.rank, adapter.alpha, attachment.strength, kind.keys(adapter))
            recipe = Recipe(*told, converted=kind.converts)
            extra[str(key)] = Extra(recipe, dict(adapter.state_dict()))
    # A table under two names is written under both: readers that copy modules keep it equal that way.
    named = network.named_parameters(remove_duplicate=False)
    trained = {name: parameter for name, parameter in named if is_within(name, head)}
    return PeftAdapter(modules, trained, metadata, tuple(head), extra)


def export(
    directory: Path,
    adapter: PeftAdapter,
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    probe: Batch,
    stream: Stream | None = None,
    **facts: Any,
) -> float:
    """Write the adapter's directory whole, after reading it back and comparing logits on a batch.

    Args:
        directory: the final place; an older export there is replaced.
        adapter: from `collect`.
        network: the network that was trained, adapters on.
        attachments: its attachments.
        probe: the batch whose logits are compared.
        stream: the network's layers, where shortcuts sit in them.
        facts: what `peft_format.write` takes: task_type, base, dropout.

    Returns:
        The largest relative difference of the logits.

    Raises:
        RuntimeError: when the files give other logits; they are removed.
    """
    with replacing_directory(directory) as draft:
        write(draft, adapter, **facts)
        expected, file = logits(network, probe), read(draft)
        difference = max(
            largest_difference(expected, _reread(draft, form, network, attachments, probe, stream))
            for form in _forms(file)
        )
        if not difference <= _ROUNDING[next(network.parameters()).dtype]:
            raise RuntimeError(f"the exported adapter gives other logits: {difference:.3g} relative")
    return difference


@torch.no_grad()
def logits(network: nn.Module, batch: Batch) -> Tensor:
    """Return the network's logits in evaluation mode; positions that are padding are zero."""
    training = network.training
    network.eval()
    try:
        output = network(**inputs(batch)).logits.float()
    finally:
        network.train(training)
    if output.ndim == 3:
        output = output * batch["attention_mask"].unsqueeze(-1)
    return output


def _forms(file: PeftAdapter) -> list[PeftAdapter]:
    """Return an adapter as this project reads it and, where that is another thing, as PEFT does."""
    plain = as_peft_has_it(file)
    return [file] if len(plain.extra) == len(file.extra) else [file, plain]


def _reread(
    directory: Path,
    file: PeftAdapter,
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    probe: Batch,
    stream: Stream | None,
) -> Tensor:
    """Return the logits of the network with the written adapter in place of the trained one."""
    enabled = {key: attachment.enabled for key, attachment in attachments.items()}
    head = dict(network.named_parameters(remove_duplicate=False))
    kept = {name: head[name].detach().clone() for name in file.head}
    for attachment in attachments.values():
        attachment.enabled = False
    try:
        sites = {attachment.site.key: attachment.site for attachment in attachments.values()}
        if stream is not None and wiring(file, str(directory)) != stream.wiring:
            raise RuntimeError("the exported adapter tells of another wiring of shortcuts")
        fresh = attach_peft(network, sites, file, str(directory), stream)
        result = logits(network, probe)
        for attachment in fresh.values():
            attachment.detach()
        return result
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                head[name].copy_(value)
        for key, attachment in attachments.items():
            attachment.enabled = enabled[key]


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
