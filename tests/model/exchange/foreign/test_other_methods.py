"""VeRA and AdaLoRA of PEFT have PEFT's logits here, as LoRAs."""

import peft
import pytest
import torch

from configs.runtime.faults import InputFault
from model.exchange.export import logits
from tests.support.exported import TASK_TYPES, batch, load_adapter_of_peft, saved_by_peft, stock


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


def test_adalora_that_was_trained_and_pruned_keeps_the_scale_of_its_first_rank(hosts, tmp_path):
    """As PEFT's own reload has it."""
    torch.manual_seed(0)
    config = peft.AdaLoraConfig(
        task_type="CAUSAL_LM",
        init_r=6,
        target_r=2,
        tinit=2,
        tfinal=2,
        total_step=8,
        deltaT=1,
        lora_alpha=32,
        target_modules=["q_proj", "v_proj"],
    )
    network = peft.get_peft_model(stock(hosts["llama"], "language_modeling"), config)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    inputs = batch()
    for step in range(1, 9):
        network(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        network.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    network.save_pretrained(tmp_path / "a")
    again = peft.PeftModel.from_pretrained(stock(hosts["llama"], "language_modeling"), tmp_path / "a")
    ours = load_adapter_of_peft(tmp_path / "a", hosts["llama"], "language_modeling")
    expected = logits(again.eval(), batch())
    torch.testing.assert_close(logits(ours.network, batch()), expected, rtol=1e-4, atol=1e-5)


def test_adalora_whose_alpha_peft_replaces_is_refused(hosts, tmp_path):
    config = peft.AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=6, target_r=3, lora_alpha=-1, total_step=10, target_modules=["q_proj"]
    )
    saved_by_peft(tmp_path / "a", hosts["llama"], "language_modeling", config)
    with pytest.raises(InputFault, match="in place of which PEFT's AdaLoRA takes the rank"):
        load_adapter_of_peft(tmp_path / "a", hosts["llama"], "language_modeling")
