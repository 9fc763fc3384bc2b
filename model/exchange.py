"""Take adapters out of a network and into one, in PEFT's format: every export is read back and compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs import kinds
from configs.faults import InputFault
from configs.files import replacing_directory
from model.adapter import AdapterKind
from model.attachment import Attachment
from model.injection import attach
from model.objective import Batch, inputs
from model.peft_format import Factors, PeftAdapter, largest_difference, read, write
from model.plan import Entry
from model.site import Site, SiteKey

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest relative difference of logits that folding the scale into B explains, by compute type."""


def collect(
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    methods: Mapping[SiteKey, str],
    head: Sequence[str],
    metadata: Mapping[str, Any],
) -> PeftAdapter:
    """Return what is on, as PEFT sees it; the strength of an attachment goes into its scale."""
    modules = {}
    for key, attachment in attachments.items():
        if attachment.active:
            kind: AdapterKind = kinds.load("model.adapters", methods[key], "ADAPTER")
            a, b, scale = kind.export(attachment.adapter)
            modules[attachment.site.path] = Factors(a, b, scale * attachment.strength)
    trained = {
        name: parameter
        for name, parameter in network.named_parameters()
        if any(name.startswith(f"{module}.") for module in head)
    }
    return PeftAdapter(modules, trained, metadata, tuple(head))


def export(
    directory: Path,
    adapter: PeftAdapter,
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    probe: Batch,
    **facts: Any,
) -> float:
    """Write the adapter's directory whole, after reading it back and comparing logits on a batch.

    Args:
        directory: the final place; an older export there is replaced.
        adapter: from `collect`.
        network: the network that was trained, adapters on.
        attachments: its attachments.
        probe: the batch whose logits are compared.
        facts: what `peft_format.write` takes: task_type, base, dropout.

    Returns:
        The largest relative difference of the logits.

    Raises:
        RuntimeError: when the files give other logits; they are removed.
    """
    with replacing_directory(directory) as draft:
        write(draft, adapter, **facts)
        expected = logits(network, probe)
        difference = largest_difference(expected, _reread(draft, network, attachments, probe))
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


def _reread(
    directory: Path, network: nn.Module, attachments: Mapping[SiteKey, Attachment], probe: Batch
) -> Tensor:
    """Return the logits of the network with the written adapter in place of the trained one."""
    enabled = {key: attachment.enabled for key, attachment in attachments.items()}
    head = dict(network.named_parameters())
    file = read(directory)
    kept = {name: head[name].detach().clone() for name in file.head}
    for attachment in attachments.values():
        attachment.enabled = False
    try:
        sites = {attachment.site.key: attachment.site for attachment in attachments.values()}
        fresh = attach_peft(network, sites, file, str(directory))
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


def plan_of(file: PeftAdapter, sites: Mapping[SiteKey, Site], where: str) -> dict[SiteKey, Entry]:
    """Return the sites and ranks that a PEFT adapter decides by itself.

    Raises:
        InputFault: naming the first module that is no site of the network, or whose widths differ.
    """
    by_path = {site.path: site for site in sites.values()}
    entries = {}
    for module, factors in file.modules.items():
        site = by_path.get(module)
        if site is None:
            raise InputFault(f"{where}: {module} is no adaptable linear layer of this network")
        if (factors.a.shape[1], factors.b.shape[0]) != (site.in_features, site.out_features):
            raise InputFault(
                f"{where}: {module}: made for {factors.a.shape[1]} -> {factors.b.shape[0]} features,"
                f" this network has {site.in_features} -> {site.out_features}"
            )
        entries[site.key] = Entry(
            rank=factors.rank,
            alpha=factors.scale * factors.rank,
            dropout=0.0,
            adapter_name="default",
            disabled=False,
        )
    return entries


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
        kind: AdapterKind = kinds.load("model.adapters", methods[key], "ADAPTER")
        try:
            # The file's scale holds the strength it was trained with; the attachment multiplies by its own.
            kind.load(adapter, factors.a, factors.b, factors.scale / (attachments[key].strength or 1.0))
        except ValueError as refusal:
            raise InputFault(f"{where}: {path}: {refusal}") from None


def attach_peft(
    network: nn.Module, sites: Mapping[SiteKey, Site], file: PeftAdapter, where: str
) -> dict[SiteKey, Attachment]:
    """Attach plain LoRA at the sites a PEFT adapter names and load it, with its head."""
    attachments = attach(network, sites, plan_of(file, sites, where), seed=0, where=where)
    device = next(network.parameters()).device
    for attachment in attachments.values():
        attachment.to(device)
    load_peft(attachments, dict.fromkeys(attachments, "lora"), file, where)
    load_head(network, file, where)
    return attachments


def load_head(network: nn.Module, file: PeftAdapter, where: str) -> None:
    """Copy the tensors an adapter saves whole into the network.

    Raises:
        InputFault: when the network has no such tensor.
    """
    parameters = dict(network.named_parameters())
    for name, value in file.head.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise InputFault(f"{where}: {name}: the network has no such tensor of shape {tuple(value.shape)}")
        with torch.no_grad():
            parameters[name].copy_(value)
