"""Mistral: a pre-norm decoder like LLaMA whose attention may see a sliding window alone."""

from dataclasses import replace

from model.network.layouts import GATED_DECODER

FAMILY = replace(GATED_DECODER, name="mistral", model_types=("mistral",))
