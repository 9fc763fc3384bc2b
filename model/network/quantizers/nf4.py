"""nf4: blocks of 64 weights as 4-bit codes, quantiles of a normal distribution, and one scale for each block.

Source: Dettmers et al. 2023, arXiv 2305.14314 (QLoRA), section 3: 4-bit NormalFloat with double quantization:
the scales are 8-bit codes in blocks of 256 about their mean, 4.127 bits per weight in all. Codes and
values are those of bitsandbytes, `quantize_4bit(quant_type="nf4", compress_statistics=True)`.
Differs: not at all.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from bitsandbytes.functional import (
    QuantState,
    create_dynamic_map,
    dequantize_4bit,
    get_4bit_type,
    quantize_4bit,
)
from torch import Tensor

from model.network.quantization import VALUE_DTYPE, QuantizerKind

_BLOCK, _FACTORS = 64, 256


def _encode(values: Tensor) -> dict[str, Tensor]:
    codes, state = quantize_4bit(
        values.contiguous(), blocksize=_BLOCK, quant_type="nf4", compress_statistics=True
    )
    nested = state.state2
    return {"codes": codes, "factors": state.absmax, "largest": nested.absmax, "mean": state.offset}


def _decode(parts: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    quantiles, steps = _maps(parts["codes"].device)
    nested = QuantState(parts["largest"], blocksize=_FACTORS, code=steps, dtype=torch.float32)
    state = QuantState(
        parts["factors"],
        shape=torch.Size(shape),
        code=quantiles,
        blocksize=_BLOCK,
        quant_type="nf4",
        dtype=VALUE_DTYPE,
        offset=parts["mean"],
        state2=nested,
    )
    return dequantize_4bit(parts["codes"], state)


@cache
def _maps(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the 16 values of the weights' codes and the 256 values of the scales' codes."""
    return get_4bit_type("nf4", device=device), create_dynamic_map().to(device)


QUANTIZER = QuantizerKind(_encode, _decode)
