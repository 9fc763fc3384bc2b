"""Checkpointing holds within the block, without a warning."""

import warnings

from transformers import AutoModelForCausalLM

from configs.runtime import kinds
from model.training.activation_checkpointing import checkpointed_activations
from tests.support.tiny import tiny_network


def test_layers_are_checkpointed_within_the_block_only():
    network = tiny_network(kinds.load(kinds.FAMILIES, "llama"), AutoModelForCausalLM)
    layer = network.model.layers[0]
    with warnings.catch_warnings(action="error"):
        with checkpointed_activations(network, wanted=True):
            assert layer.gradient_checkpointing
        assert not layer.gradient_checkpointing
        with checkpointed_activations(network, wanted=False):
            assert not layer.gradient_checkpointing
