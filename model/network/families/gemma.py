"""Gemma 1, 2 and the text part of 3: pre-norm decoders; from 2 on every block also ends with a norm."""

from dataclasses import replace

from model.network.layouts import GATED_DECODER

FAMILY = replace(
    GATED_DECODER,
    name="gemma",
    model_types=("gemma", "gemma2", "gemma3_text"),
    # In these, `post_attention_layernorm` is applied to attention's output, before the residual sum.
    ffn_norms=dict.fromkeys(("gemma2", "gemma3_text"), "pre_feedforward_layernorm"),
    # As in the published sizes, the number of heads times their width is not the hidden size.
    tiny={**GATED_DECODER.tiny, "head_dim": 16},
)
