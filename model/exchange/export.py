"""Write the adapters of a network as a directory in PEFT's format; every export is read back and compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.runtime.files import replacing_directory, write_text
from model.exchange.extra_adapters import load_kind, recorded_wiring, single_alpha
from model.exchange.extra_tensors import Extra, Recipe
from model.exchange.factors import Factors
from model.exchange.load import attach_peft
from model.exchange.peft_format import PeftAdapter, as_peft_has_it, largest_difference, read, write
from model.injection.attachment import Attachment
from model.injection.residual_stream import Stream
from model.network.modules_to_save import is_within
from model.site import SiteKey
from model.training.objective import Batch, inputs

_ROUNDING = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Compute dtype -> largest relative difference of logits that multiplying the scale into B explains.

What is read back is in float32, the dtype of the file, also where the network computes in float64.
"""


def collect(
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    methods: Mapping[SiteKey, str],
    head: Sequence[str],
    metadata: Mapping[str, Any],
) -> PeftAdapter:
    """Return the adapters that are on in PEFT's form; each scale contains the strength of the attachment.

    Methods that PEFT has no form for are kept as `extra`, those that are converted to a LoRA as both.

    Args:
        network: the host.
        attachments: by site.
        methods: kind of adapter by site.
        head: dotted names of the modules that are saved whole.
        metadata: what PEFT has no key for.
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
            recipe = Recipe(
                methods[key],
                adapter.rank,
                single_alpha(adapter),
                attachment.strength,
                kind.keys(adapter),
                converted=kind.converts,
            )
            extra[str(key)] = Extra(recipe, dict(adapter.state_dict()))
    # A tied table is written under both names: readers that copy modules then keep the copies equal.
    named = network.named_parameters(remove_duplicate=False)
    trained = {name: parameter for name, parameter in named if is_within(name, head)}
    return PeftAdapter(modules, trained, metadata, tuple(head), extra)


def export(
    directory: Path,
    adapter: PeftAdapter,
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    batch: Batch,
    stream: Stream | None = None,
    card: str = "",
    **facts: Any,
) -> float:
    """Write the adapter's directory, after reading it back and comparing logits on a batch.

    Args:
        directory: where it goes; an older export there is replaced.
        adapter: from `collect`.
        network: the network that was trained, adapters on.
        attachments: its attachments.
        batch: the logits of this batch are compared.
        stream: the network's layers, where shortcuts sit in them.
        card: the content of README.md; empty for none.
        facts: what `peft_format.write` takes: task_type, base, dropout.

    Returns:
        The largest relative difference of the logits.

    Raises:
        RuntimeError: when the files give other logits; nothing is written then.
    """
    with replacing_directory(directory) as draft:
        write(draft, adapter, **facts)
        if card:
            write_text(draft / "README.md", card)
        expected, file = logits(network, batch), read(draft)
        difference = max(
            largest_difference(expected, _reread(form, network, attachments, batch, stream))
            for form in _forms(file)
        )
        if not difference <= _ROUNDING[next(network.parameters()).dtype]:
            raise RuntimeError(f"the exported adapter gives other logits: {difference:.3g} relative")
    return difference


@torch.no_grad()
def logits(network: nn.Module, batch: Batch) -> Tensor:
    """Return the logits in evaluation mode, float32: (B, C), or (B, T, vocabulary) with zeros at padding."""
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
    """Return the adapter as this project reads it and, where PEFT reads it differently, as PEFT does."""
    plain = as_peft_has_it(file)
    return [file] if len(plain.extra) == len(file.extra) else [file, plain]


def _reread(
    file: PeftAdapter,
    network: nn.Module,
    attachments: Mapping[SiteKey, Attachment],
    batch: Batch,
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
        if stream is not None and recorded_wiring(file) != stream.wiring:
            raise RuntimeError("the exported adapter records another wiring of its shortcuts")
        fresh = attach_peft(network, sites, file, stream)
        result = logits(network, batch)
        for attachment in fresh.values():
            attachment.detach()
        return result
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                head[name].copy_(value)
        for key, attachment in attachments.items():
            attachment.enabled = enabled[key]
