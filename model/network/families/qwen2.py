"""Qwen2 and Qwen2.5: a pre-norm decoder like LLaMA with biases at queries, keys and values."""

from dataclasses import replace

from model.network.layouts import GATED_DECODER

FAMILY = replace(GATED_DECODER, name="qwen2", model_types=("qwen2",))
