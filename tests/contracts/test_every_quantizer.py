"""Every number format of frozen linears: codes and values are those of its formula, in plain tensors."""

import pytest
import torch

from configs.runtime import kinds
from configs.schema.options import QUANTIZED_DTYPES
from model.network.quantization import QuantizedWeight

functional = pytest.importorskip("bitsandbytes.functional", reason="an optional package")

QUANTILES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
)
"""NF4 as Dettmers et al. 2023 print it, appendix E."""
SHAPES = ((576, 192), (33, 7), (1, 64), (129, 300))
BITS = {"int8": 8 + 32 / 192, "nf4": 4.127 + 0.005}
every_quantizer = pytest.mark.parametrize("name", QUANTIZED_DTYPES)


def _kind(name):
    return kinds.load(kinds.QUANTIZERS, name)


def _values(shape, scale=0.05):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))).bfloat16()


def _int8(parts, shape):
    return parts["codes"].float() * parts["largest"][:, None] / 127


def _nf4(parts, shape):
    count = shape[0] * shape[1]
    steps = functional.create_dynamic_map()
    spread = parts["largest"].repeat_interleave(256)[: len(parts["factors"])]
    factors = steps[parts["factors"].long()] * spread + parts["mean"]
    bytes_ = parts["codes"].flatten().long()
    codes = torch.stack([bytes_ // 16, bytes_ % 16], 1).flatten()[:count]
    return (torch.tensor(QUANTILES)[codes] * factors.repeat_interleave(64)[:count]).view(shape)


FORMULAS = {"int8": _int8, "nf4": _nf4}


def test_every_quantizer_has_its_formula_here():
    assert set(FORMULAS) == set(QUANTIZED_DTYPES)


@every_quantizer
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_formula(name, shape):
    kind, values = _kind(name), _values(shape)
    parts = kind.encode(values)
    found = kind.decode(parts, shape)
    assert (found.dtype, tuple(found.shape)) == (torch.bfloat16, shape)
    torch.testing.assert_close(found.float(), FORMULAS[name](parts, shape), rtol=2**-8, atol=1e-8)
    assert all(a.equal(b) for a, b in zip(parts.values(), kind.encode(values.clone()).values()))


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_takes_the_nearest_whole_number(shape):
    values = _values(shape)
    parts = _kind("int8").encode(values)
    largest = values.float().abs().amax(1)
    torch.testing.assert_close(parts["largest"], largest, rtol=1e-3, atol=0)
    exact = values.half().float() * 127 / parts["largest"][:, None]
    assert (parts["codes"] - exact).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_takes_the_nearest_quantile_of_the_block(shape):
    values = _values(shape)
    parts = _kind("nf4").encode(values)
    count = values.numel()
    blocks = torch.cat([values.float().flatten(), torch.zeros(-count % 64)]).view(-1, 64)
    scaled = (blocks / blocks.abs().amax(1, keepdim=True)).flatten()[:count]
    bytes_ = parts["codes"].flatten().long()
    codes = torch.stack([bytes_ // 16, bytes_ % 16], 1).flatten()[:count]
    distances = (scaled[:, None] - torch.tensor(QUANTILES)).abs()
    chosen = distances.gather(1, codes[:, None]).squeeze(1)
    assert (chosen - distances.min(1).values).max() < 1e-5


def test_nf4_is_that_of_bitsandbytes_with_double_quantisation():
    values = _values((96, 320))
    codes, state = functional.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=True)
    parts = _kind("nf4").encode(values)
    assert parts["codes"].equal(codes)
    assert _kind("nf4").decode(parts, values.shape).equal(functional.dequantize_4bit(codes, state))
    assert state.code.tolist() == pytest.approx(QUANTILES, abs=1e-7)


@every_quantizer
def test_it_takes_its_declared_bits(name):
    values = _values((576, 192))
    parts = _kind(name).encode(values)
    bits = 8 * sum(part.numel() * part.element_size() for part in parts.values()) / values.numel()
    assert bits == pytest.approx(BITS[name], abs=0.01)


@every_quantizer
def test_the_values_are_near_and_zeros_stay_zeros(name):
    values = _values((128, 256))
    values[3] = 0
    values[:, 64:128] = 0
    kind = _kind(name)
    found = kind.decode(kind.encode(values), values.shape).float()
    assert found.isfinite().all()
    assert (found[3] == 0).all()
    error = (found - values.float()).norm() / values.float().norm()
    assert error < {"int8": 0.01, "nf4": 0.11}[name]


@every_quantizer
def test_a_quantized_weight_survives_moves_and_casts(name):
    kind, values = _kind(name), _values((48, 32))
    weight = QuantizedWeight(kind.encode(values), kind, values.shape, torch.float32)
    again = weight.to(torch.bfloat16).to("cpu").clone().to(torch.float32)
    assert again.dequantize().equal(weight.dequantize())
    assert weight.dequantize().equal(kind.decode(kind.encode(values), values.shape).float())
