"""Which learning rate and decay each trained tensor gets."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from configs.runtime import kinds
from model.injection.attach import attach, locate
from model.plan.adapter_config import AdapterConfig
from model.training.learners.finetune import FineTuner
from model.training.objective import Classification
from model.training.optimizer import OptimizerSettings, build_optimizer, parameter_groups
from tests.support.tiny import tiny_network


def _groups(method, **changes):
    family = kinds.load(kinds.FAMILIES, "roberta")
    network = tiny_network(family, AutoModelForSequenceClassification, num_labels=2).requires_grad_(False)
    network.classifier.requires_grad_(True)
    sites = locate(network, family, 1)
    config = AdapterConfig(
        rank=2, alpha=4.0, dropout=0.0, adapter_name="default", disabled=False, method=method
    )
    attachments = attach(network, sites, dict.fromkeys(sites, config), 0, "plan")
    settings = OptimizerSettings("adamw", 0.01, 0.04, 0.1, "none", 0.0, 0.0, **changes)
    learner = FineTuner(
        network,
        attachments,
        head=("classifier",),
        objective=Classification((), 2),
        optimizer_settings=settings,
    )
    names = {id(p): name for name, p in learner.trained().items()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(settings, learner.trained(), learner.head)
        for p in group["params"]
    }


def test_adapters_decay_with_their_vectors_and_the_head_has_its_own():
    groups = _groups("aflora", head_weight_decay=0.3)
    assert {groups[f"adapters.layer_0/w1.adapter.{name}"] for name in "ABdb"} == {(0.01, 0.1)}
    assert "adapters.layer_0/o_proj.adapter.A" not in groups
    for module in ("dense", "out_proj"):
        assert groups[f"network.classifier.{module}.weight"] == (0.04, 0.3)
        assert groups[f"network.classifier.{module}.bias"] == (0.04, 0.0)


def test_the_heads_decay_is_the_adapters_unless_it_is_given():
    assert _groups("lora")["network.classifier.dense.weight"] == (0.04, 0.1)
    assert _groups("lora", head_weight_decay=0.0)["network.classifier.dense.weight"] == (0.04, 0.0)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_moments_and_epsilon_reach_the_optimiser(optimizer):
    settings = OptimizerSettings(
        optimizer, 0.01, 0.01, 0.1, "none", 0.0, 0.0, betas=(0.8, 0.95), epsilon=1e-5
    )
    tensor = torch.nn.Parameter(torch.ones(2, 2))
    made, _ = build_optimizer(settings, {"adapters.x": tensor}, (), 3)
    (group,) = made.param_groups
    if optimizer == "sgd":
        assert "betas" not in group
    else:
        assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-5)
