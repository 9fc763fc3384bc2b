"""VeRA and AdaLoRA of PEFT have PEFT's logits here, as LoRAs."""

import peft
import pytest
import torch

from configs.runtime.faults import InputFault
from model.exchange.export import logits
from tests.support.exported import TASK_TYPES, batch, load_adapter_of_peft, saved_by_peft


@pytest.mark.parametrize("objective", ["language_modeling", "classification"])
def test_vera_of_peft_is_read_as_a_lora(hosts, tmp_path, objective):
    config = peft.VeraConfig(
        task_type=TASK_TYPES[objective], r=8, target_modules=["q_proj", "v_proj", "down_proj"]
    )
    expected = saved_by_peft(tmp_path / "a", hosts["llama"], objective, config)
    ours = load_adapter_of_peft(tmp_path / "a", hosts["llama"], objective)
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)


def test_vera_without_its_projections_is_refused_with_the_way_out(hosts, tmp_path):
    config = peft.VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj"], save_projection=False)
    saved_by_peft(tmp_path / "a", hosts["llama"], "language_modeling", config)
    with pytest.raises(InputFault, match="save it with save_projection = True"):
        load_adapter_of_peft(tmp_path / "a", hosts["llama"], "language_modeling")


def test_adalora_of_peft_is_read_as_a_lora(hosts, tmp_path):
    config = peft.AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=6, target_r=3, lora_alpha=5, total_step=10, target_modules=["q_proj"]
    )
    expected = saved_by_peft(tmp_path / "a", hosts["llama"], "language_modeling", config)
    ours = load_adapter_of_peft(tmp_path / "a", hosts["llama"], "language_modeling")
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)
