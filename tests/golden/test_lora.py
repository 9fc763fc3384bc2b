"""LoRA at one linear against golden cases: outputs, gradients, merged weights."""

import pytest

from model.plan.adapter_config import AdapterConfig
from tests.support.golden import LinearCase, cases, every_dtype, every_way

pytestmark = pytest.mark.golden


@every_dtype
@every_way
@pytest.mark.parametrize("path", cases("lora_*.safetensors"))
def test_lora(path, way, dtype):
    case = LinearCase(path, dtype)
    config = AdapterConfig(case.meta["r"], case.meta["lora_alpha"], 0.0, "default", False)
    names = {"A": "lora_A", "B": "lora_B"}
    attachments = case.attached(way, ("q_proj", "k_proj", "v_proj"), config, {}, names)
    case.run(attachments)
    for attachment in attachments:
        case.close(attachment.adapter.A.grad, "grad.lora_A")
        case.close(attachment.adapter.B.grad.t(), "grad.lora_B")
        attachment.merge()
        case.close(attachment.linear.weight, "merged_weight")
        case.close(attachment.linear(case.tensors["input.x"]), "y_merged")
        attachment.unmerge()
        case.close(attachment.linear(case.tensors["input.x"]), "y")
