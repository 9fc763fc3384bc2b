"""Merge adapters into the weights of their network and write it as a plain `transformers` checkpoint.

Source: Hu et al. 2021, arXiv 2106.09685, section 4.1: W = W0 + (alpha / R) B A has no cost at inference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from configs.runtime import kinds
from configs.runtime.faults import InputFault
from configs.runtime.files import replacing_directory
from configs.runtime.seeds import derive
from model.assembly.assembly import Assembled
from model.exchange.export import logits
from model.exchange.peft_format import largest_difference
from model.injection.attachment import Attachment
from model.network.backbone import load_backbone
from model.network.quantization import dequantize
from model.network.snapshot import quiet_transformers, save_network
from model.network.source import LocalSource
from model.site import SiteKey
from model.training.objective import Batch

_ROUNDING = 1e-4
"""Largest relative difference of float32 logits that adding the delta to the weight explains."""


class Differences(NamedTuple):
    """Largest relative differences of logits, computed in float32.

    Args:
        merging: between the merged weights and the unmerged adapter.
        rounding: between the merged weights and the same in the number format of the file.
    """

    merging: float
    rounding: float


def merge(
    assembled: Assembled, directory: Path, labels: Sequence[str], dtype: torch.dtype = torch.float32
) -> Differences:
    """Write the network with its adapters merged, after reading it back and comparing logits.

    The delta is added in float32. The network's memory is freed before the written one is loaded; it cannot
    be used afterwards.

    Args:
        assembled: network and adapters.
        directory: where the checkpoint goes; it must not exist.
        labels: class names of a classification head.
        dtype: number format of the written weights.

    Raises:
        InputFault: when an adapter depends on its input.
        RuntimeError: when the written network gives other logits; the directory is removed then.
    """
    backbone, network = assembled.backbone, assembled.network
    refuse_unmergeable(assembled.attachments, assembled.methods)
    dequantize(network)
    batch = random_batch(network.config.vocab_size, network.config.pad_token_id)
    expected = logits(network, batch)
    for attachment in assembled.attachments.values():
        attachment.merge()
        attachment.detach()
    merged = logits(network, batch)
    _require_close(largest_difference(expected, merged))
    with replacing_directory(directory) as draft:
        with quiet_transformers():
            _cast(network, dtype)
            save_network(network, backbone.tokenizer, backbone.settings, draft)
        _cast(network, torch.float32)
        rounded = logits(network, batch)
        _free(network)
        written = load_backbone(
            LocalSource(str(draft), "--output", draft, "directory"), backbone.objective, labels
        )
        if written.new_modules:
            raise RuntimeError(f"the merged network lacks {', '.join(written.new_modules)}")
        _require_close(largest_difference(rounded, logits(written.network, batch)))
    return Differences(largest_difference(expected, merged), largest_difference(merged, rounded))


def _require_close(difference: float) -> None:
    if not difference <= _ROUNDING:
        raise RuntimeError(f"the merged network gives other logits: {difference:.3g} relative")


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    """Change the number format of a network's parameters; buffers (rotary frequencies) stay as computed."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)


def _free(network: nn.Module) -> None:
    """Give the memory of the weights back."""
    network.to("meta")


def refuse_unmergeable(attachments: Mapping[SiteKey, Attachment], methods: Mapping[SiteKey, str]) -> None:
    """Refuse adapters whose delta depends on their input, so that it is no matrix.

    Raises:
        InputFault: naming each such method once, with the first of its sites.
    """
    first: dict[str, SiteKey] = {}
    for key, attachment in attachments.items():
        if attachment.active and attachment.adapter.merged_delta() is None:
            first.setdefault(methods[key], key)
    if first:
        raise InputFault(
            *(
                f"--adapter: {key}: '{method}' {kinds.load(kinds.ADAPTERS, method).unmergeable};"
                " keep it as an adapter: `main test --adapter`, `tools.generate --adapter`"
                for method, key in first.items()
            )
        )


def random_batch(vocabulary: int, pad: int, rows: int = 3, length: int = 8) -> Batch:
    """Return a batch of random token ids; the second half of the last row is padding.

    Args:
        vocabulary: number of token ids.
        pad: id of the padding.
        rows: B.
        length: T.

    Returns:
        input_ids and attention_mask, (B, T) each.
    """
    generator = torch.Generator().manual_seed(derive(0, "merge", "probe"))
    # Never the pad id: RoBERTa's positions are counted by it.
    ids = torch.randint(0, vocabulary - 1, (rows, length), generator=generator)
    ids += ids >= pad
    mask = torch.ones_like(ids)
    ids[-1, length // 2 :] = pad
    mask[-1, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}
