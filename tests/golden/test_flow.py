"""LoRA-Flow at the linears of one layer against golden cases."""

import pytest
import torch
from torch import nn

from configs.runtime import kinds
from model.adapters.adapter import PlannedSite
from model.injection.linear_attachment import LinearAttachment, share_inputs
from model.plan.adapter_config import AdapterConfig
from model.site import SHARED_INPUT, Site, SiteKey
from tests.support.golden import LinearCase, cases, every_dtype

pytestmark = pytest.mark.golden
KIND = kinds.load(kinds.ADAPTERS, "flow")
CONFIG = AdapterConfig(1, 1.0, 0.0, "default", False, method="flow")
ROLES = {
    "o_proj": "o_proj",
    "down_proj": "w2",
    "fc2": "w2",
    "up_proj": "w1",
    "gate_proj": "gate",
    "fc1": "w1",
}


def _linear(case, name):
    weight, bias = (case.tensors.get(f"module.{name}.param.{part}") for part in ("weight", "bias"))
    linear = nn.Linear(*reversed(weight.shape), bias=bias is not None, dtype=case.dtype)
    linear.requires_grad_(False)
    linear.weight.copy_(weight)
    if bias is not None:
        linear.bias.copy_(bias)
    return linear


def _attached(case, fused):
    """Return the module's name -> its attachment, all with one gate that holds the case's numbers."""
    meta, linears, planned = case.meta, {}, []
    options = KIND.options(width=meta["hidden_size"], sets=meta["k"])
    for module in meta["modules"]:
        key = SiteKey(0, ROLES.get(module["name"], module["name"]))
        site = Site(key, module["name"], module["in_features"], module["out_features"])
        planned.append(PlannedSite(site, CONFIG, options))
    found = {}
    for key, adapter in KIND.build(planned, 0).items():
        site = next(one.site for one in planned if one.site.key == key)
        name = f"module.{site.path}.param"
        adapter.to(case.dtype).take(
            [
                (case.tensors[f"{name}.lora_A.{i}"], case.tensors[f"{name}.lora_B.{i}"], meta["scaling"][i])
                for i in range(meta["k"])
                if f"{name}.lora_A.{i}" in case.tensors
            ]
        )
        linears[key] = LinearAttachment(site, _linear(case, site.path), adapter, fused)
        found[site.path] = linears[key]
    share_inputs(linears, SHARED_INPUT)
    gate = next(iter(found.values())).adapter.gate
    with torch.no_grad():
        gate.G.copy_(case.tensors["param.gate.weight"])
        gate.b.copy_(case.tensors["param.gate.bias"])
    return found, gate


@every_dtype
@pytest.mark.parametrize("way", ["plain", "fused"])
@pytest.mark.parametrize("path", cases("flow_*.safetensors"))
def test_flow(path, way, dtype):
    case = LinearCase(path, dtype)
    found, gate = _attached(case, KIND.fused_forward if way == "fused" else None)
    x = case.tensors["input.x"].clone().requires_grad_()
    gate.read(x)
    inputs = {}
    total = torch.zeros((), dtype=dtype)
    for module in case.meta["modules"]:
        name, source = module["name"], module["input"]
        own = f"module.{name}.{source}" if f"module.{name}.{source}" in case.tensors else source
        u = x if source == "input.x" else inputs.setdefault(own, case.tensors[own].clone().requires_grad_())
        y = found[name].linear(u)
        case.compare(y, case.tensors[f"module.{name}.expected.y"])
        total = total + (y * case.tensors[f"module.{name}.input.g"]).sum()
    case.compare(gate.of(x.detach()), case.tensors["expected.w"])
    total.backward()
    case.compare(x.grad, case.tensors["expected.grad.x"])
    case.compare(gate.G.grad, case.tensors["expected.grad.gate.weight"])
    case.compare(gate.b.grad, case.tensors["expected.grad.gate.bias"])
    for own, u in inputs.items():
        wanted = own.replace(".input.u", ".expected.grad.u")
        case.compare(u.grad, case.tensors[wanted])
