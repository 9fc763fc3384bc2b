"""Quantized weights: computing with them gives exactly the numbers of their values and keeps none of them.

The kind here is of plain torch, so that these tests need no further package; `tests/contracts` has the real
ones.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from configs.runtime import kinds
from configs.toml.writer import toml_text
from model.assembly.assembly import assemble
from model.assembly.placement import Plans
from model.network.backbone import load_backbone, with_quantizer
from model.network.quantization import QuantizedWeight, QuantizerKind, dequantize, quantize
from model.network.source import resolve
from model.plan.lora_toml import read_plan
from model.training.mixed_precision import frozen_weights_in_compute_dtype
from tests.support.runs import ENTRY

LARGEST = 7


def _encode(values):
    step = values.float().abs().amax(1, keepdim=True) / LARGEST
    return {"codes": (values / step).round().to(torch.int8), "step": step}


def _decode(parts, shape):
    return (parts["codes"] * parts["step"]).view(tuple(shape)).to(torch.bfloat16)


KIND = QuantizerKind(_encode, _decode)
METHODS = {
    "lora": {},
    "hydra": {"method": "hydra", "heads": 3},
    "uniform": {"method": "hydra", "heads": 3, "router": "uniform"},
    "moe": {"method": "lora_moe", "heads": 2},
    "split": {"method": "lora_split", "heads": 2},
}
BATCH = {
    "input_ids": torch.arange(5, 29).view(3, 8),
    "attention_mask": torch.ones(3, 8, dtype=torch.long).tril(6),
}


@pytest.fixture(autouse=True)
def kind(monkeypatch):
    load = kinds.load
    monkeypatch.setattr(kinds, "load", lambda r, n: KIND if r == kinds.QUANTIZERS else load(r, n))


def _linear(dtype=torch.bfloat16, bias=True):
    linear = nn.Linear(6, 4, bias=bias, dtype=dtype).requires_grad_(False)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    quantize([nn.Sequential(linear)], KIND)
    return linear


def _assembled(ground, tmp_path, table, *, family="llama", base_dtype="nf4", **more):
    path = tmp_path / "plan.toml"
    path.write_text(toml_text(table))
    backbone = load_backbone(
        resolve(str(ground.host(family)), "--load"), "classification", ("a", "b"), base_dtype=base_dtype
    )
    if base_dtype == "float32":
        backbone = with_quantizer(backbone, "nf4")
    return assemble(backbone, Plans(read_plan(path)), None, 0, **more)


def _plan(method):
    return {"default": {**ENTRY, "init_lora_weights": False, **METHODS[method]}}


def _loss(network, precision=None):
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        return network(**BATCH).logits.float().square().sum()


def _gradients(network, trained, precision=None):
    loss = _loss(network, precision)
    return loss, torch.autograd.grad(loss, trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_computes_with_the_values_and_keeps_the_codes(dtype, bias):
    linear = _linear(dtype, bias)
    dense = linear.weight.dequantize()
    assert type(dense) is torch.Tensor
    assert dense.dtype == dtype
    torch.testing.assert_close(dense, (linear.weight.codes * linear.weight.step).bfloat16().to(dtype))
    x = torch.randn(2, 3, 6, dtype=dtype, requires_grad=True)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(t), t)[1], lambda t: t):
        y = linear(x)
    assert [type(t) for t in seen] == [QuantizedWeight]
    expected = F.linear(x, dense, linear.bias)
    assert y.equal(expected)
    g = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad(one, x, g)[0] for one in (y, expected)))


def test_any_other_operation_sees_the_values_and_none_changes_them():
    weight = _linear().weight
    dense = weight.dequantize()
    x = torch.randn(5, 4, dtype=torch.bfloat16)
    assert torch.equal(x @ weight, x @ dense)
    assert torch.equal(torch.zeros(5, 6, dtype=x.dtype).addmm_(x, weight), x @ dense)
    assert torch.equal(weight.float() + 1, dense.float() + 1)
    for change in (lambda w: w.add_(1), lambda w: w.copy_(dense), lambda w: w.zero_()):
        with pytest.raises(TypeError, match="a quantized weight cannot be written to"):
            change(weight.detach())
    assert weight.dequantize().equal(dense)


def test_moves_copies_and_number_formats_keep_it_quantized():
    linear = _linear()
    dense = linear.weight.dequantize()
    other = copy.deepcopy(linear)
    assert other.weight.codes.data_ptr() != linear.weight.codes.data_ptr()
    for change in ("cpu", torch.float64, torch.float32, torch.bfloat16):
        other.to(change)
        assert isinstance(other.weight, QuantizedWeight)
        assert isinstance(other.weight, nn.Parameter)
        assert other.weight.dequantize().equal(dense.to(other.weight.dtype))
    assert other.to("meta").weight.codes.is_meta
    state = linear.state_dict()
    assert list(state) == ["weight", "bias"]
    assert state["weight"].dequantize().equal(dense)
    assert (linear.weight.numel(), linear.weight.shape, linear.weight.requires_grad) == (24, (4, 6), False)


@pytest.mark.parametrize("base_dtype", ["nf4", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_and_gradients_are_those_over_the_values_to_the_last_bit(
    ground, tmp_path, method, base_dtype
):
    one = _assembled(ground, tmp_path, _plan(method), base_dtype=base_dtype)
    trained = [p for a in one.attachments.values() for p in a.adapter.parameters()]
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (seen.append(t), t)[1], lambda t: t):
        loss, found = _gradients(one.network, trained)
    assert sum(isinstance(t, QuantizedWeight) for t in seen) == len(one.sites)
    shapes = {(site.out_features, site.in_features) for site in one.sites.values()}
    shapes |= {shape[::-1] for shape in shapes}
    assert [t.shape for t in seen if not isinstance(t, QuantizedWeight) and tuple(t.shape) in shapes] == []
    dequantize(one.network)
    again, expected = _gradients(one.network, trained)
    assert loss.equal(again)
    assert all(a.equal(b) for a, b in zip(found, expected))
    assert all(g.any() for g in expected)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_heads_of_a_projection_and_autocast_are_exact_too(ground, tmp_path, precision):
    table = {"granularity": "head", "default": {**ENTRY, "init_lora_weights": False}}
    table["model_layer_0"] = {"o_proj": {**ENTRY, "r": 0}}
    one = _assembled(ground, tmp_path, table)
    trained = [p for a in one.attachments.values() for p in a.adapter.parameters()]
    loss, found = _gradients(one.network, trained, precision)
    dequantize(one.network)
    again, expected = _gradients(one.network, trained, precision)
    assert loss.equal(again)
    assert all(a.equal(b) for a, b in zip(found, expected))


@pytest.mark.parametrize("family", ["llama", "opt", "deberta"])
def test_frozen_linears_of_the_layers_alone_are_quantized(ground, tmp_path, family):
    table = {"default": {**ENTRY, "r": 0}, "all_layers": {"q_proj": ENTRY}}
    name = {"llama": "o_proj", "opt": "fc1", "deberta": "intermediate.dense"}[family]
    one = _assembled(ground, tmp_path, {"modules_to_save": [name], **table}, family=family)
    quantized = {n for n, p in one.network.named_parameters() if isinstance(p, QuantizedWeight)}
    assert quantized == {
        f"{n}.weight"
        for layer, module in enumerate(one.layers)
        for inner, m in module.named_modules()
        if isinstance(m, nn.Linear)
        and (n := f"{one.backbone.family.layer.format(layer=layer)}.{inner}") not in one.modules_to_save
    }
    assert len(one.modules_to_save) == 3
    plain = load_backbone(
        resolve(str(ground.host(family)), "--load"), "classification", ("a", "b"), base_dtype="bfloat16"
    )
    assert one.backbone.digest == plain.digest
    before, after = (sum(p.numel() for p in network.parameters()) for network in (plain.network, one.network))
    assert before == after
    assert list(plain.network.state_dict()) == list(one.network.state_dict())


def test_autocast_swaps_leave_it_quantized():
    network = nn.Sequential(_linear())
    before = network[0].weight
    with frozen_weights_in_compute_dtype(network, "bf16-mixed"):
        assert isinstance(network[0].weight, QuantizedWeight)
    assert network[0].weight is before


def test_an_adapter_is_merged_into_plain_weights_alone(ground, tmp_path):
    one = _assembled(ground, tmp_path, _plan("lora"))
    attachment = next(iter(one.attachments.values()))
    with pytest.raises(TypeError, match="a quantized weight cannot be written to"):
        attachment.merge()
    dequantize(one.network)
    attachment.merge()
    assert attachment.merged
