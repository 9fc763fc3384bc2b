"""LLaMA: a pre-norm decoder with rotary positions, gated feed-forward block and grouped queries."""

from dataclasses import replace

from model.network.layouts import GATED_DECODER

FAMILY = replace(GATED_DECODER, name="llama", model_types=("llama",))
