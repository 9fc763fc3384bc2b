"""Mistral: a pre-norm decoder like LLaMA whose attention may be limited to a sliding window."""

from dataclasses import replace

from model.network.layouts import GATED_DECODER

FAMILY = replace(GATED_DECODER, name="mistral", model_types=("mistral",))
