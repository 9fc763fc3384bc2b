"""HydraLoRA at one linear against golden cases, and the ablation that computes the same."""

import pytest
import torch

from configs.runtime import kinds
from model.adapters.adapter import AdaptedLinear
from model.plan.adapter_config import AdapterConfig
from tests.support.golden import LinearCase, cases, every_dtype, every_way

pytestmark = pytest.mark.golden


def _config(case, method):
    return AdapterConfig(case.meta["r"], case.meta["lora_alpha"], 0.0, "default", False, method=method)


@every_dtype
@every_way
@pytest.mark.parametrize("path", cases("hydra_*.safetensors"))
def test_hydra(path, way, dtype):
    case = LinearCase(path, dtype)
    experts = range(case.meta["n_experts"])
    names = {"A": "lora_A", "router": "router"} | {f"B{i}": f"lora_B.{i}" for i in experts}
    attachments = case.attached(way, ("gate", "w1"), _config(case, "hydra"), {"heads": len(experts)}, names)
    weights = case.tensors["expected.router_weights"].flatten(0, -2)
    for attachment in attachments:
        attachment.adapter.observer = lambda w: case.compare(w, weights)
    case.run(attachments)
    for attachment in attachments:
        case.close(attachment.adapter.A.grad, "grad.lora_A")
        case.close(attachment.adapter.router.grad, "grad.router")
        for number, b in enumerate(attachment.adapter.B.grad.split(case.meta["r"])):
            case.close(b.t(), f"grad.lora_B.{number}")


@pytest.mark.parametrize("path", cases("hydra_*.safetensors"))
def test_hydra_is_what_a_router_over_equal_as_computes(path):
    case = LinearCase(path, torch.float32)
    experts = range(case.meta["n_experts"])
    names = {f"A{i}": "lora_A" for i in experts} | {f"B{i}": f"lora_B.{i}" for i in experts}
    options = {"heads": len(experts), "combine": "routed"}
    _, adapter = case.adapter("w2", _config(case, "lora_split"), options, {**names, "router": "router"})
    x = case.tensors["input.x"].requires_grad_()
    part = AdaptedLinear(case.tensors["param.weight"], case.tensors.get("param.bias"), adapter, 1.0)
    (y,) = kinds.load(kinds.ADAPTERS, "lora_split").fused_forward(x, [part])
    (y * case.tensors["input.g"]).sum().backward()
    case.close(y, "y")
    case.close(x.grad, "grad.x")
    case.close(adapter.router.grad, "grad.router")
